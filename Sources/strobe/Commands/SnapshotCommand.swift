import CommandLineArguments
import Engine
import Platform
import SnapshotRepository

enum SnapshotCommand: Command {
  private static let collection = Argument("COLLECTION", help: "The machine whose disks these are")
  private static let disk = RepeatedOption(
    "disk", short: "d", value: "NAME=PATH",
    help:
      "Add a disk, or say where a known one is now: a block device, a raw image file, FORMAT:PATH or an NBD URI"
  )
  private static let forget = RepeatedOption(
    "forget-disk", value: "NAME", help: "Leave a disk out from now on")
  private static let same = RepeatedOption(
    "same-disk", value: "NAME",
    help:
      "Continue the disk's chain although it has another identity (it was copied to other hardware)"
  )
  private static let idle = RepeatedOption(
    "idle", value: "NAME",
    help: "Nobody writes to this disk, by your word: what an NBD server exports can't be watched")
  private static let format = Option(
    "format", value: "FORMAT",
    help:
      "What the files of --disk are: raw (default), qcow2, vmdk, vdi or vhdx; as FORMAT:PATH does")
  private static let full = Flag(
    "full", help: "Store every disk whole, in a new chain: after damage to the old one")
  private static let chunkSize = Option(
    "chunk-size", value: "SIZE", help: "For a new collection: a power of two from 4KiB to 4MiB")
  private static let freeze = RepeatedOption(
    "freeze", value: "WHAT",
    help:
      "auto (default): what is mounted from the disks, and the guest with --guest-agent; none; guest: the guest, or fail; or a mount point, repeatable"
  )
  private static let maxFreeze = Option(
    "max-freeze", value: "DURATION", default: "10s",
    help: "Thaw and give the point up when the freeze lasts longer")
  private static let track = Option(
    "track", value: "HOW", default: "auto",
    help: "Trackers of writes: auto: those that run; keep: start them, to stay; none")
  private static let preFreeze = Option(
    "pre-freeze", value: "PROGRAM", help: "Run before the freeze, to bring applications to rest")
  private static let postThaw = Option(
    "post-thaw", value: "PROGRAM", help: "Run after the thaw, whatever came of the rest")
  private static let hookTimeout = Option(
    "hook-timeout", value: "DURATION", default: "30s",
    help: "For all attempts of a hook together; at most 30m")
  private static let hookRetries = Option(
    "hook-retries", value: "N", default: "0", help: "How often a hook that failed is started again")
  private static let hookLevel = Option(
    "hook-level", value: "application|crash", default: "application",
    help: "What the hooks bring: applications at rest, or only nobody who writes (a paused guest)")
  private static let hookFailure = Option(
    "hook-failure", value: "abort|continue", default: "abort",
    help: "What a failed hook means; continue: the point is not ApplicationConsistent")
  private static let workers = Option(
    "workers", value: "N", help: "Threads; one a processor unless given")

  static let declaration = CommandDeclaration(
    name: "snapshot", summary: "Add a restore point of all disks of a collection",
    discussion: """
      The first point of a disk is full, later ones store only what changed. The disks are remembered.

      What is mounted from the disks on this host is frozen for the cut, milliseconds where the writes \
      are tracked; a guardian process thaws it whatever happens. An image file on XFS or Btrfs is cut by \
      sharing its blocks with a copy. A snapshot that was interrupted is gone on with: what it stored is \
      not stored again. docs/consistency.md tells what each level promises.
      """,
    arguments: [collection],
    options: [
      disk, format, forget, same, idle, full, chunkSize, workers, freeze, maxFreeze, track,
      preFreeze, postThaw,
      hookTimeout, hookRetries, hookFailure, hookLevel,
    ] + GuestOptions.all,
    examples: [
      Example(
        "strobe snapshot web --disk os=/dev/vg/os --disk data=/dev/vg/data", "The first time"),
      Example("strobe snapshot web", "Later: the same disks, only the changes"),
      Example("strobe snapshot web --forget-disk data", "The machine lost a disk"),
      Example(
        "strobe snapshot vm1 --qmp /run/vm1.qmp --guest-agent /run/vm1.qga",
        "All disks of a running QEMU guest"),
      Example(
        "strobe snapshot vm1 --libvirt vm1", "… of a libvirt domain, frozen if it has an agent"),
      Example("strobe snapshot vm1 --disk vda=qcow2:/images/vm1.qcow2", "… of a guest that is off"),
      Example("strobe snapshot web --track keep", "Later points read only what was written"),
      Example(
        "strobe snapshot db --pre-freeze /usr/local/lib/strobe/hooks/postgresql "
          + "--post-thaw /usr/local/lib/strobe/hooks/postgresql",
        "With an application at rest"),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed; nothing was committed"),
      ExitStatus(2, "Wrong usage"),
      ExitStatus(3, "Done, but the point is less consistent than asked for: the message says why"),
      ExitStatus(130, "Interrupted; nothing was committed"),
    ])

  static func run(_ values: ParsedValues) throws -> Int32 {
    let engine = try Common.engine(values)
    let report = try ProgressLine.during("reading", values) {
      try engine.snapshot(values[collection], options(values), progress: $0, stop: Common.stop)
    }
    for warning in report.warnings { Console.warning(warning) }
    let isWeak = report.isWeaker || report.point.consistency == .inconsistent
    if isWeak {
      Console.warning(
        "the point is \(report.point.consistency.rawValue): "
          + report.point.consistencyReasons.joined(separator: "; "))
    }
    if values[Common.json] {
      try Console.print(
        json: PointJSON(
          report.point, seconds: report.seconds, adoptedBytes: report.adoptedBytes,
          warnings: report.warnings, healedChunks: report.healedChunks))
    } else if !values[Common.quiet] {
      print(report)
    }
    return isWeak ? 3 : 0
  }

  private static func options(_ values: ParsedValues) throws -> SnapshotOptions {
    var options = SnapshotOptions()
    let format = try ImageFormatOption.parse(values, format)
    options.disks = try values.parse(disk, as: .assignment).map {
      .init(name: $0.name, path: ImageFormatOption.apply(format, to: $0.value))
    }
    options.idleDisks = values[idle]
    options.forgottenDisks = values[forget]
    options.sameDisks = values[same]
    options.isFull = values[full]
    options.chunkSize = try values.parse(chunkSize, as: .byteCount(in: 0...Int.max))
    options.workerCount = try values.parse(workers, as: .wholeNumber(in: 1...256))
    options.freezing = try freezing(values[freeze])
    options.maxFreezeMilliseconds = try OptionValues.milliseconds(
      values, maxFreeze, upTo: .seconds(3600))
    options.tracking = try OptionValues.choice(values, track)
    options.guest = try GuestOptions.parse(values)
    options.hooks.preFreeze = values[preFreeze]
    options.hooks.postThaw = values[postThaw]
    options.hooks.timeoutSeconds =
      try (OptionValues.milliseconds(values, hookTimeout, upTo: .seconds(1800)) + 999) / 1000
    options.hooks.retries = try values.parse(hookRetries, as: .wholeNumber(in: 0...1000)) ?? 0
    options.hooks.failureEndsPass =
      try OptionValues.choice(values, hookFailure, as: HookFailure.self) == .abort
    options.hooks.bringRest =
      try OptionValues.choice(values, hookLevel, as: HookLevel.self) == .application
    return options
  }

  private enum HookLevel: String, CaseIterable { case application, crash }
  private enum HookFailure: String, CaseIterable { case abort, `continue` }

  private static func freezing(_ words: [String]) throws -> SnapshotOptions.Freezing {
    if words.isEmpty || words == ["auto"] { return .automatic }
    if words == ["none"] { return .none }
    if words == ["guest"] { return .guest }
    if let word = words.first(where: { ["auto", "none", "guest"].contains($0) }) {
      throw UsageError(
        "--freeze \(word) can't be given together with others", advice: "name mount points only")
    }
    if let word = words.first(where: { !$0.hasPrefix("/") }) {
      throw UsageError(
        "--freeze '\(word)' is neither auto, none, guest nor a mount point",
        advice: "write a mount point with its whole path")
    }
    return .mountPoints(words)
  }

  private static func print(_ report: SnapshotReport) {
    let point = report.point
    let read = point.disks.reduce(0) { $0 + $1.readBytes }
    Console.print(
      "\(point.collection)@\(point.id.prefix(12))  \(point.created)  \(point.consistency.rawValue)  "
        + "\(Units.duration(report.seconds)), \(Units.rate(read, report.seconds)) read"
        + (point.freezeWindowMilliseconds.map { ", frozen \(Units.number($0, digits: 1)) ms" } ?? "")
    )
    for disk in point.disks {
      Console.print(
        "  \(disk.name): \(Units.size(disk.size)), \(changes(disk, chunkSize: point.chunkSize))"
          + (disk.newChainReason.map { " (full: \($0))" } ?? "")
          + (disk.scanReason.map { " (read whole: \($0))" } ?? ""))
    }
    if report.adoptedBytes > 0 {
      Console.print(
        "  resumed: \(Units.size(report.adoptedBytes)) of an interrupted snapshot were not stored again"
      )
    }
    if report.healedChunks > 0 {
      Console.print(
        "  \(Units.count(report.healedChunks, "damaged chunk")) of older points healed: "
          + "the disks still hold the same there")
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
