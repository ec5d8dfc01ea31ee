import CommandLineArguments
import Engine
import Glibc
import Platform
import Synchronization

enum RestoreCommand: Command {
  private static let point = Argument("POINT", help: "COLLECTION@latest, @-N, @ID or @TIME")
  private static let disk = RepeatedOption(
    "disk", short: "d", value: "NAME=TARGET",
    help:
      "Restore this disk to a block device, a sparse file that is made, FORMAT:PATH or an NBD URI")
  private static let directory = Option(
    "to", value: "DIR",
    help: "Restore all disks to files DIR/NAME.raw (or .qcow2, … as --format says)")
  private static let format = Option(
    "format", value: "FORMAT",
    help: "What files are made: raw (default), qcow2, vmdk, vdi or vhdx; as FORMAT:PATH does")
  private static let overwrite = Flag("overwrite", help: "Replace files that are there already")
  private static let overwriteSource = Flag(
    "overwrite-source", help: "Roll back: write to a disk that the collection is taken of")
  private static let writeConfig = Option(
    "write-config", value: "FILE",
    help: "Also write what the guest can be defined again with (libvirt's domain XML) to a new file"
  )
  private static let resume = Flag(
    "resume", help: "Go on with an interrupted restore: read the targets, write only what differs")
  private static let allowDamaged = Flag(
    "allow-damaged", help: "Write zeros where what was stored is damaged, and list these bytes")
  private static let workers = Option(
    "workers", value: "N", help: "Threads; one a processor unless given")

  static let declaration = CommandDeclaration(
    name: "restore", summary: "Write disks of a restore point to devices or files",
    discussion: """
      Every chunk is checked before it is written. A device must not be mounted or held by another \
      program; what it holds is overwritten. A file gets its name only when it is complete.

      An interrupted restore leaves its file beside that name, as .NAME.strobe-partial; --resume goes on \
      with it, or with a device. Whatever is there is compared, so any point may be restored that way.
      """,
    arguments: [point],
    options: [
      disk, directory, format, writeConfig, overwrite, overwriteSource, resume, allowDamaged,
      workers,
    ],
    examples: [
      Example("strobe restore web@latest --disk os=/dev/vg/new --disk data=data.raw", ""),
      Example(
        "strobe restore web@2026-11-21T08:00Z --to /srv/restored",
        "All disks, as they were at eight"),
      Example("strobe restore vm1@latest --to /images --format qcow2", "As images for a new guest"),
      Example(
        "strobe restore web@latest --disk data=data.raw --resume", "After it was interrupted"),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed; a target may be half written"),
      ExitStatus(2, "Wrong usage"),
      ExitStatus(
        3,
        "Done, but some bytes are zeros because they are damaged (--allow-damaged), or it isn't sure that "
          + "the point is the one that was meant"),
      ExitStatus(130, "Interrupted; a target may be half written"),
    ])

  private struct Output: Encodable {
    struct Extent: Encodable {
      let offset: Int
      let length: Int
    }

    struct Disk: Encodable {
      let name: String
      let target: String
      let size: Int
      let writtenBytes: Int
      let keptBytes: Int
      let damagedRanges: [Extent]
      let untouchedBytes: Int
    }

    let collection: String
    let point: String
    let disks: [Disk]
    let seconds: Double
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let reference = try PointReference(values[point])
    let format = try ImageFormatOption.parse(values, format)
    var targets = try values.parse(disk, as: .assignment).map {
      RestoreTarget(disk: $0.name, path: ImageFormatOption.apply(format, to: $0.value))
    }
    let engine = try Common.engine(values)
    if let directory = values[directory] {
      try makeFolder(directory)
      let named = targets.map(\.disk)
      targets += try engine.describe(reference).point.disks.filter { !named.contains($0.name) }.map
      {
        RestoreTarget(
          disk: $0.name,
          path: ImageFormatOption.apply(format, to: "\(directory)/\($0.name).\(format ?? "raw")"))
      }
    }
    var options = RestoreOptions()
    options.overwritesFiles = values[overwrite]
    options.overwritesSources = values[overwriteSource]
    options.resumes = values[resume]
    options.allowsDamage = values[allowDamaged]
    options.workerCount = try values.parse(workers, as: .wholeNumber(in: 1...256))
    if let path = values[writeConfig] { try writeConfiguration(engine, reference, path) }
    let report = try run(engine, reference, targets, options, values)
    if values[Common.json] {
      try Console.print(json: output(report))
    } else if !values[Common.quiet] {
      print(report)
    }
    let doubt = try engine.doubt(about: reference)
    if let doubt { Console.warning(doubt) }
    return tellDamage(report) || doubt != nil ? 3 : 0
  }

  /// First, so that a point without one, or a file that is there, shows before disks are written.
  private static func writeConfiguration(
    _ engine: SnapshotEngine, _ reference: PointReference, _ path: String
  ) throws {
    let text = try GuestConfiguration.of(engine.describe(reference).point)
    let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_EXCL)
    try unsafe Array(text.utf8).withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
    try file.synchronize()
  }

  /// - Returns: whether there is some.
  private static func tellDamage(_ report: RestoreReport) -> Bool {
    for disk in report.disks {
      for range in disk.damagedRanges {
        Console.error(
          "disk \(disk.name), bytes \(range.lowerBound) to \(range.upperBound - 1) are zeros: what was stored "
            + "there is damaged")
      }
    }
    return report.disks.contains { !$0.damagedRanges.isEmpty }
  }

  /// Makes the directory of `--to`; the one above it must be there, so that a typing error shows.
  private static func makeFolder(_ path: String) throws {
    if try FileFacts(path: path) != nil { return }
    _ = try systemCall("mkdir", path) { unsafe mkdir(path, 0o700) }
  }

  private static func run(
    _ engine: SnapshotEngine, _ reference: PointReference, _ targets: [RestoreTarget],
    _ options: RestoreOptions, _ values: ParsedValues
  ) throws -> RestoreReport {
    var hasBegun = false
    do {
      return try ProgressLine.during("restoring", values) { progress in
        // Known only when all targets were found good.
        defer { hasBegun = progress.totalBytes.load(ordering: .relaxed) > 0 }
        return try engine.restore(
          reference, targets, options, progress: progress, stop: Common.stop)
      }
    } catch {
      let devices = targets.map(\.path).filter {
        ((try? FileFacts(path: $0)) ?? nil)?.isBlockDevice == true
      }
      if hasBegun && !devices.isEmpty {
        Console.warning(
          "half written: " + devices.joined(separator: ", ") + "; go on with --resume")
      }
      throw error
    }
  }

  private static func print(_ report: RestoreReport) {
    let written = report.disks.reduce(0) { $0 + $1.writtenBytes }
    Console.print(
      "\(report.point.collection)@\(report.point.id.prefix(12)) of \(report.point.created) restored in "
        + "\(Units.duration(report.seconds)), \(Units.rate(written, report.seconds)) written")
    if report.point.consistency == .inconsistent {
      Console.print(
        "  The point is Inconsistent: its disks were written to while they were read. Check what is on "
          + "them (fsck) before you rely on it.")
    }
    for disk in report.disks {
      let rest =
        disk.untouchedBytes > 0
        ? "; the last \(Units.size(disk.untouchedBytes)) of the target are untouched" : ""
      let kept =
        disk.keptBytes > 0 ? ", \(Units.size(disk.keptBytes)) were there already" : ""
      Console.print(
        "  \(disk.name) → \(disk.target): \(Units.size(disk.size)), "
          + "\(Units.size(disk.writtenBytes)) written\(kept)\(rest)")
    }
  }

  private static func output(_ report: RestoreReport) -> Output {
    Output(
      collection: report.point.collection, point: report.point.id,
      disks: report.disks.map {
        .init(
          name: $0.name, target: $0.target, size: $0.size, writtenBytes: $0.writtenBytes,
          keptBytes: $0.keptBytes,
          damagedRanges: $0.damagedRanges.map { .init(offset: $0.lowerBound, length: $0.count) },
          untouchedBytes: $0.untouchedBytes)
      }, seconds: report.seconds)
  }
}
