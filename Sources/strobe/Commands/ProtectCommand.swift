import CommandLineArguments
import Engine

enum ProtectCommand: Command {
  private static let points = RepeatedArgument(
    "POINT", atLeast: 1, help: "COLLECTION@latest, @-N, @ID or @TIME")
  private static let note = Option("note", value: "TEXT", help: "Why, for people")

  static let declaration = CommandDeclaration(
    name: "protect", summary: "Keep restore points from being deleted and pruned",
    discussion: "Until 'strobe unprotect'. A point that is protected already gets the new note.",
    arguments: [points], options: [note],
    examples: [
      Example("strobe protect web@latest --note 'before the upgrade'", ""),
      Example("strobe protect web@3f9a2c41 db@3f9a2c41", ""),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable { let protected: [String] }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let references = try values[points].map { text throws in try PointReference(text) }
    let protected = try Common.engine(values).protect(references, note: values[note])
    if values[Common.json] {
      try Console.print(json: Output(protected: protected.map { "\($0.collection)@\($0.id)" }))
    } else if !values[Common.quiet] {
      for point in protected {
        Console.print("\(point.collection)@\(point.id.prefix(12)) is protected.")
      }
    }
    return 0
  }
}

enum UnprotectCommand: Command {
  private static let points = RepeatedArgument(
    "POINT", atLeast: 1, help: "COLLECTION@latest, @-N, @ID or @TIME")

  static let declaration = CommandDeclaration(
    name: "unprotect", summary: "Let protected restore points be deleted again",
    arguments: [points],
    examples: [Example("strobe unprotect web@3f9a2c41", "")],
    exitStatuses: [
      ExitStatus(0, "Done; or it wasn't protected"), ExitStatus(1, "Failed"),
      ExitStatus(2, "Wrong usage"),
    ])

  private struct Output: Encodable { let unprotected: [String] }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let references = try values[points].map { text throws in try PointReference(text) }
    let points = try Common.engine(values).unprotect(references)
    if values[Common.json] {
      let changed = points.filter(\.wasProtected)
      try Console.print(json: Output(unprotected: changed.map { "\($0.collection)@\($0.id)" }))
    } else if !values[Common.quiet] {
      for point in points {
        Console.print(
          "\(point.collection)@\(point.id.prefix(12)) "
            + (point.wasProtected ? "is not protected any more." : "was not protected."))
      }
    }
    return 0
  }
}
