import CommandLineArguments

/// A program with one of every kind of declaration, for the tests of this room.
enum Sample {
  static let repository = Option(
    "repository", short: "r", value: "DIR", environment: "STROBE_REPOSITORY",
    help: "The repository to work in")
  static let json = Flag("json", help: "Write one JSON document to standard output")
  static let quiet = Flag("quiet", short: "q", help: "Show no progress")

  static let collection = Argument("COLLECTION", help: "The collection to add a restore point to")
  static let disk = RepeatedOption(
    "disk", short: "d", value: "NAME=PATH",
    help: "A disk of the machine and the device to read it from; needed the first time")
  static let chunkSize = Option(
    "chunk-size", value: "SIZE", default: "64KiB", help: "The unit of change, fixed at first use")
  static let maxFreeze = Option(
    "max-freeze", value: "DURATION", default: "10s", environment: "STROBE_MAX_FREEZE",
    help: "Thaw and give up when the file systems have been frozen for so long")

  static let listed = OptionalArgument("COLLECTION", help: "Only this collection")
  static let points = RepeatedArgument("POINT", help: "The restore points to delete")
  static let paths = RepeatedArgument("PATH", atLeast: 0, help: "Only these")

  static let snapshot = CommandDeclaration(
    name: "snapshot", summary: "Take a restore point of all disks of a machine",
    group: "Restore points",
    discussion: """
      Reads the disks, finds the chunks that changed since the last restore point, and stores
      those. All disks are of the same instant.

      Sizes are written with binary units:
          64KiB  1MiB
      """,
    arguments: [collection], options: [disk, chunkSize, maxFreeze],
    examples: [
      Example("strobe snapshot web --disk os=/dev/vg/os", "The first time: name the disks"),
      Example("strobe snapshot web", "Later: only the changes"),
    ],
    exitStatuses: [
      ExitStatus(0, "The restore point is durable"),
      ExitStatus(
        3,
        "It is durable, but its consistency is weaker than what was asked for; the report says why"
      ),
    ])
  static let list = CommandDeclaration(
    name: "list", summary: "List restore points, newest last", group: "Restore points",
    arguments: [listed])
  static let delete = CommandDeclaration(
    name: "delete", summary: "Delete restore points", group: "Space",
    usage: ["POINT...", "--older-than TIME"], arguments: [points])
  static let scrub = CommandDeclaration(
    name: "scrub", summary: "Check some objects", group: "Space", arguments: [listed, paths])

  static let strobe = ProgramDeclaration(
    name: "strobe", summary: "Incremental snapshots of block devices", version: "1.2.3",
    commands: [snapshot, list, delete, scrub], commonOptions: [repository, json, quiet],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage"),
    ])

  static func parse(
    _ words: String..., environment: [String: String] = [:]
  ) throws(UsageError) -> Invocation {
    try strobe.parse(words, environment: environment)
  }

  /// The values that a command line gives to a command.
  static func values(
    _ words: String..., environment: [String: String] = [:]
  ) throws -> ParsedValues {
    guard case .command(_, let values) = try strobe.parse(words, environment: environment) else {
      throw NotACommand()
    }
    return values
  }

  /// The error of a wrong command line, as the user reads it.
  static func error(_ words: String...) -> String {
    do {
      return "no error, but \(try strobe.parse(words))"
    } catch {
      return error.description
    }
  }
}

struct NotACommand: Error {}
