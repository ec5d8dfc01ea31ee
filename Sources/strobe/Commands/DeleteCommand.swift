import CommandLineArguments
import Engine

enum DeleteCommand: Command {
  private static let points = RepeatedArgument(
    "POINT", atLeast: 1, help: "COLLECTION@latest, @-N, @ID or @TIME")

  static let declaration = CommandDeclaration(
    name: "delete", summary: "Remove restore points; others don't change",
    discussion: """
      The space comes back with 'strobe gc' as far as no later point builds on it: a later point needs \
      what it shares with this one. A chain is renewed after at most 32 points. \
      Protected points are refused (strobe unprotect); strobe prune deletes by rules.
      """,
    arguments: [points],
    examples: [
      Example("strobe delete web@3f9a2c41", ""), Example("strobe delete web@-9 web@-8", ""),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable { let deleted: [String] }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let engine = try Common.engine(values)
    let references = try values[points].map { text throws in try PointReference(text) }
    let deleted = try engine.delete(references)
    if values[Common.json] {
      try Console.print(json: Output(deleted: deleted.map(\.id)))
    } else if !values[Common.quiet] {
      for point in deleted { Console.print("Deleted \(point.collection)@\(point.id.prefix(12)).") }
    }
    return 0
  }
}
