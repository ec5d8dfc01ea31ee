import CommandLineArguments
import Engine
import Platform
import SnapshotRepository

enum SnapshotCommand: Command {
  private static let collection = Argument("COLLECTION", help: "The machine whose disks these are")
  private static let disk = RepeatedOption(
    "disk", short: "d", value: "NAME=PATH",
    help: "Add a disk, or say where a known one is now: a block device or raw image file")
  private static let forget = RepeatedOption(
    "forget-disk", value: "NAME", help: "Leave a disk out from now on")
  private static let same = RepeatedOption(
    "same-disk", value: "NAME",
    help:
      "Continue the disk's chain although it has another identity (it was copied to other hardware)"
  )
  private static let full = Flag(
    "full", help: "Store every disk whole, in a new chain: after damage to the old one")
  private static let chunkSize = Option(
    "chunk-size", value: "SIZE", help: "For a new collection: a power of two from 4KiB to 4MiB")
  private static let workers = Option(
    "workers", value: "N", help: "Threads; one a processor unless given")

  static let declaration = CommandDeclaration(
    name: "snapshot", summary: "Add a restore point of all disks of a collection",
    discussion: """
      The first point of a disk is full, later ones store only what changed. The disks are remembered. \
      Nothing is frozen: a disk that is mounted read-write, or that is written to while it is read, makes \
      the point Inconsistent.
      """,
    arguments: [collection], options: [disk, forget, same, full, chunkSize, workers],
    examples: [
      Example(
        "strobe snapshot web --disk os=/dev/vg/os --disk data=/dev/vg/data", "The first time"),
      Example("strobe snapshot web", "Later: the same disks, only the changes"),
      Example("strobe snapshot web --forget-disk data", "The machine lost a disk"),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed; nothing was committed"),
      ExitStatus(2, "Wrong usage"),
      ExitStatus(3, "Done, but the point is Inconsistent"),
      ExitStatus(130, "Interrupted; nothing was committed"),
    ])

  static func run(_ values: ParsedValues) throws -> Int32 {
    var options = SnapshotOptions()
    options.disks = try values.parse(disk, as: .assignment).map {
      .init(name: $0.name, path: $0.value)
    }
    options.forgottenDisks = values[forget]
    options.sameDisks = values[same]
    options.isFull = values[full]
    options.chunkSize = try values.parse(chunkSize, as: .byteCount(in: 0...Int.max))
    options.workerCount = try values.parse(workers, as: .wholeNumber(in: 1...256))
    let engine = try Common.engine(values)
    let report = try ProgressLine.during("reading", values) {
      try engine.snapshot(values[collection], options, progress: $0, stop: Common.stop)
    }
    for warning in report.warnings { Console.warning(warning) }
    let isWeak = report.point.consistency == .inconsistent
    if isWeak {
      Console.warning(
        "the point is Inconsistent: " + report.point.consistencyReasons.joined(separator: "; "))
    }
    if values[Common.json] {
      try Console.print(
        json: PointJSON(report.point, seconds: report.seconds, warnings: report.warnings))
    } else if !values[Common.quiet] {
      print(report)
    }
    return isWeak ? 3 : 0
  }

  private static func print(_ report: SnapshotReport) {
    let point = report.point
    let read = point.disks.reduce(0) { $0 + $1.readBytes }
    Console.print(
      "\(point.collection)@\(point.id.prefix(12))  \(point.created)  \(point.consistency.rawValue)  "
        + "\(Units.duration(report.seconds)), \(Units.rate(read, report.seconds)) read")
    for disk in point.disks {
      Console.print(
        "  \(disk.name): \(Units.size(disk.size)), \(changes(disk, chunkSize: point.chunkSize))"
          + (disk.newChainReason.map { " (full: \($0))" } ?? ""))
    }
  }

  /// `27.7 MiB changed, 10.2 MiB cleared, 3.2 MiB stored`; a short last chunk counts as a whole one.
  private static func changes(_ disk: DiskRestorePoint, chunkSize: Int) -> String {
    guard disk.changedChunks > 0 else { return "nothing changed" }
    var text = "\(Units.size(disk.changedBytes)) changed"
    if disk.clearedChunks > 0 {
      text += ", \(Units.size(min(disk.clearedChunks * chunkSize, disk.size))) cleared"
    }
    return text + ", \(Units.size(disk.storedBytes)) stored"
  }
}
