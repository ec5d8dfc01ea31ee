import CommandLineArguments
import Engine

enum InitCommand: Command {
  private static let chunkSize = Option(
    "chunk-size", value: "SIZE", default: "64KiB",
    help: "The unit of change of new collections: a power of two from 4KiB to 4MiB")
  private static let fingerprint = Option(
    "fingerprint", value: "sha256|xxh3", default: "xxh3",
    help: "What tells chunks of new collections apart; see below")
  private static let repair = Flag(
    "repair", help: "Write a new config.json into a repository that lost its own")

  static let declaration = CommandDeclaration(
    name: "init", summary: "Make a repository in an empty or new directory",
    discussion: """
      xxh3 is XXH3-128 keyed with a secret: it runs at memory speed and finds accidents and rot, but it is no \
      cryptographic hash. sha256 is SHA-256, keyed and cut to 128 bits: nobody can make other content for a \
      fingerprint, and a scan costs about five times the processor time. It never changes for a collection.
      """,
    options: [chunkSize, fingerprint, repair],
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
    let fingerprint: String
  }

  private static func kind(_ values: ParsedValues) throws -> FingerprintKind {
    let word = try values.require(fingerprint)
    switch word {
    case "xxh3": return .xxh3
    case "sha256": return .sha256
    default:
      throw UsageError(
        "--fingerprint '\(word)' is neither sha256 nor xxh3", advice: "see strobe init --help")
    }
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let size = try values.require(chunkSize, as: .byteCount(in: 0...Int.max))
    let engine = try SnapshotEngine.create(
      at: try values.require(Common.repository), chunkSize: size, fingerprint: kind(values),
      repairing: values[repair])
    if values[Common.json] {
      try Console.print(
        json: Output(
          repository: engine.location, id: engine.repositoryID, chunkSize: engine.defaultChunkSize,
          fingerprint: engine.defaultFingerprint.rawValue))
    } else if !values[Common.quiet] {
      Console.print(
        "Repository \(engine.location) is ready (chunks of \(Units.size(engine.defaultChunkSize))"
          + (engine.defaultFingerprint == .xxh3
            ? "" : ", fingerprints by \(engine.defaultFingerprint.rawValue)") + ")."
      )
    }
    return 0
  }
}
