import CommandLineArguments
import Engine

enum HealCommand: Command {
  private static let collection = OptionalArgument(
    "COLLECTION", help: "One collection; all unless given")
  private static let from = Option(
    "from", value: "REPOSITORY", help: "A repository with a copy of the collection")

  static let declaration = CommandDeclaration(
    name: "heal", summary: "Store damaged chunks again, so that points are whole",
    discussion: """
      Takes the damage that 'strobe verify' found, and looks for the same content: on the disks that the \
      collection remembers, or with --from in another repository. What is found, by its fingerprint, is stored \
      again; all points that share it restore again. Nothing else changes. A snapshot does the same with its \
      disks by itself.
      """,
    arguments: [collection], options: [from],
    examples: [
      Example("strobe heal", "From the disks themselves"),
      Example("strobe heal web --from /mnt/copy/strobe", "From a copy"),
    ],
    exitStatuses: [
      ExitStatus(0, "Nothing is damaged any more"), ExitStatus(1, "Failed"),
      ExitStatus(2, "Wrong usage"), ExitStatus(3, "Done, but some chunks were not found"),
    ])

  private struct Output: Encodable {
    struct Collection: Encodable {
      let collection: String
      let damagedChunks: Int
      let healedChunks: Int
      let damagedLayers: Int
      let healedLayers: Int
    }

    let collections: [Collection]
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let reports = try Common.engine(values).heal(
      values[collection], from: values[from], stop: Common.stop)
    for report in reports {
      for warning in report.warnings { Console.warning("\(report.collection): \(warning)") }
    }
    if values[Common.json] {
      try Console.print(
        json: Output(
          collections: reports.map {
            .init(
              collection: $0.collection, damagedChunks: $0.damagedChunks,
              healedChunks: $0.healedChunks, damagedLayers: $0.damagedLayers,
              healedLayers: $0.healedLayers)
          }))
    } else if !values[Common.quiet] {
      for report in reports { tell(report) }
      if reports.allSatisfy({ $0.damagedChunks + $0.damagedLayers == 0 }) {
        Console.print("No damage is known; 'strobe verify' looks for it.")
      }
    }
    let isWhole = reports.allSatisfy {
      $0.healedChunks == $0.damagedChunks && $0.healedLayers == $0.damagedLayers
    }
    return isWhole ? 0 : 3
  }

  private static func tell(_ report: HealReport) {
    if report.damagedChunks > 0 {
      Console.print(
        "\(report.collection): \(report.healedChunks) of "
          + "\(Units.count(report.damagedChunks, "damaged chunk")) healed.")
    }
    if report.damagedLayers > 0 {
      Console.print(
        "\(report.collection): \(report.healedLayers) of "
          + "\(Units.count(report.damagedLayers, "damaged layer")) healed"
          + (report.healedLayers < report.damagedLayers
            ? "; only a copy of the repository has them (--from); the next snapshot starts a new chain"
            : "") + ".")
    }
  }
}
