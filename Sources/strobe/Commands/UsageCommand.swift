import CommandLineArguments
import Engine

enum UsageCommand: Command {
  private static let collection = OptionalArgument(
    "COLLECTION", help: "One collection; all unless given")

  static let declaration = CommandDeclaration(
    name: "usage",
    summary: "Tell what collections and points take, and what deleting one would free",
    discussion: """
      NEEDED is what a point needs of the segments, most of it shared with others. FREES is about what deleting this \
      point alone, and then 'strobe gc', would free; what shares a block of 4 KiB with something needed \
      stays. What several points share comes free with the last \
      of them.
      """,
    arguments: [collection],
    examples: [Example("strobe usage", ""), Example("strobe usage web", "")],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable {
    struct Point: Encodable {
      let id: String
      let created: String
      let neededBytes: Int
      let ownBytes: Int
    }

    struct Collection: Encodable {
      let collection: String
      let liveBytes: Int
      let deadBytes: Int
      let sharedBytes: Int
      let layerBytes: Int
      let points: [Point]
    }

    let collections: [Collection]
    let unnamedBytes: Int
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let report = try Common.engine(values).usage(values[collection], stop: Common.stop)
    if values[Common.json] {
      try Console.print(json: output(report))
      return 0
    }
    for (index, collection) in report.collections.enumerated() {
      if index > 0 { Console.print("") }
      print(collection)
    }
    if report.unnamedBytes > 0 {
      Console.print(
        "\(Units.size(report.unnamedBytes)) belong to no point: a snapshot that runs or was interrupted, or "
          + "what gc removes.")
    }
    return 0
  }

  private static func print(_ collection: UsageReport.Collection) {
    Console.print(
      "\(collection.name): \(Units.size(collection.liveBytes)) needed, of it "
        + "\(Units.size(collection.sharedBytes)) by several points; "
        + "\(Units.size(collection.layerBytes)) layers; "
        + "\(Units.size(collection.deadBytes)) dead, which gc frees")
    var table = Table(["POINT", "TIME", "NEEDED", "FREES"], rightAligned: [2, 3])
    for point in collection.points {
      table.add([
        "\(collection.name)@\(point.id.prefix(12))", point.created.description,
        Units.size(point.neededBytes), Units.size(point.ownBytes),
      ])
    }
    table.print()
  }

  private static func output(_ report: UsageReport) -> Output {
    Output(
      collections: report.collections.map { collection in
        .init(
          collection: collection.name, liveBytes: collection.liveBytes,
          deadBytes: collection.deadBytes, sharedBytes: collection.sharedBytes,
          layerBytes: collection.layerBytes,
          points: collection.points.map {
            .init(
              id: $0.id, created: $0.created.description, neededBytes: $0.neededBytes,
              ownBytes: $0.ownBytes)
          })
      }, unnamedBytes: report.unnamedBytes)
  }
}
