import CommandLineArguments
import Engine
import SnapshotRepository

enum ListCommand: Command {
  private static let collection = OptionalArgument("COLLECTION", help: "Only this collection")

  static let declaration = CommandDeclaration(
    name: "list", summary: "Show restore points, the newest last",
    arguments: [collection],
    examples: [Example("strobe list", ""), Example("strobe list web --json", "")],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed, or a point can't be read"),
      ExitStatus(2, "Wrong usage"),
    ])

  private struct Output: Encodable {
    struct Collection: Encodable {
      let name: String
      let points: [PointSummary]
      let unreadable: [String]
    }

    let collections: [Collection]
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let listings = try Common.engine(values).list(values[collection])
    if values[Common.json] {
      try Console.print(
        json: Output(
          collections: listings.map {
            .init(name: $0.name, points: $0.points, unreadable: $0.unreadable.map(\.message))
          }))
    } else {
      print(listings, quiet: values[Common.quiet])
    }
    let unreadable = listings.flatMap(\.unreadable)
    for error in unreadable { Console.error(error.description) }
    return unreadable.isEmpty ? 0 : 1
  }

  private static func print(_ listings: [CollectionListing], quiet: Bool) {
    var table = Table(
      ["POINT", "TIME", "CONSISTENCY", "DISKS", "SIZE", "CHANGED", "STORED", ""],
      rightAligned: [3, 4, 5, 6])
    for listing in listings {
      for point in listing.points {
        table.add([
          "\(point.collection)@\(point.id.prefix(12))", point.created.description,
          point.consistency.rawValue, "\(point.diskCount)", Units.size(point.size),
          Units.size(point.changedBytes), Units.size(point.storedBytes),
          [point.fingerprint, point.isProtected ? "protected" : nil].compactMap { $0 }.joined(
            separator: ", "),
        ])
      }
    }
    if listings.allSatisfy({ $0.points.isEmpty }) {
      if !quiet { Console.error("there are no restore points", prefix: "") }
    } else {
      table.print()
    }
  }
}
