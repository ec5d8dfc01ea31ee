import CommandLineArguments
import Engine

enum InitCommand: Command {
  private static let chunkSize = Option(
    "chunk-size", value: "SIZE", default: "64KiB",
    help: "The unit of change of new collections: a power of two from 4KiB to 4MiB")
  private static let repair = Flag(
    "repair", help: "Write a new config.json into a repository that lost its own")

  static let declaration = CommandDeclaration(
    name: "init", summary: "Make a repository in an empty or new directory",
    options: [chunkSize, repair],
    examples: [
      Example("strobe init --repository /srv/strobe", ""),
      Example(
        "strobe init --repository /srv/db --chunk-size 16KiB",
        "For database disks with small writes"),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable {
    let repository: String
    let id: String
    let chunkSize: Int
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let size = try values.require(chunkSize, as: .byteCount(in: 0...Int.max))
    let engine = try SnapshotEngine.create(
      at: try values.require(Common.repository), chunkSize: size, repairing: values[repair])
    if values[Common.json] {
      try Console.print(
        json: Output(
          repository: engine.location, id: engine.repositoryID, chunkSize: engine.defaultChunkSize))
    } else if !values[Common.quiet] {
      Console.print(
        "Repository \(engine.location) is ready (chunks of \(Units.size(engine.defaultChunkSize)))."
      )
    }
    return 0
  }
}
