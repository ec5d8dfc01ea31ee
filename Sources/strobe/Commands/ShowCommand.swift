import CommandLineArguments
import Engine

enum ShowCommand: Command {
  private static let point = Argument("POINT", help: "COLLECTION@latest, @-N, @ID or @TIME")
  private static let config = Flag(
    "config", help: "Print only what the guest can be defined again with: libvirt's domain XML")

  static let declaration = CommandDeclaration(
    name: "show", summary: "Show a restore point: disks, sizes, changes, consistency, chain",
    arguments: [point],
    options: [config],
    examples: [
      Example("strobe show web@latest", ""),
      Example("strobe show web@2026-11-21T08:00Z --json", ""),
      Example("strobe show vm1@latest --config | virsh define /dev/stdin", "The machine itself"),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  static func run(_ values: ParsedValues) throws -> Int32 {
    let reference = try PointReference(values[point])
    let description = try Common.engine(values).describe(reference)
    if values[config] {
      Console.print(try GuestConfiguration.of(description.point))
      return 0
    }
    if values[Common.json] {
      try Console.print(json: PointJSON(description.point, described: description))
    } else {
      print(description)
    }
    return 0
  }

  private static func print(_ description: PointDescription) {
    let point = description.point
    Console.print("Restore point  \(point.collection)@\(point.id)")
    Console.print("Taken          \(point.created), finished \(point.finished)")
    Console.print(
      "Number         \(point.sequence)"
        + (point.parent.map { ", changes against \($0.prefix(12))" } ?? ""))
    Console.print("Consistency    \(point.consistency.rawValue)")
    for reason in point.consistencyReasons {
      Console.print("               \(Console.visible(reason))")
    }
    Console.print(
      "Freeze window  "
        + (point.freezeWindowMilliseconds.map { "\(Units.number($0, digits: 1)) ms" }
          ?? "nothing was frozen")
        + (point.frozen == nil && point.freezeWindowMilliseconds != nil
          ? " between the hooks; no file system was frozen" : ""))
    for system in point.frozen ?? [] {
      Console.print(
        "               \(Console.visible(system.mountPoint)) (\(system.fileSystem)), frozen in "
          + "\(Units.number(system.freezeMilliseconds, digits: 1)) ms")
    }
    for hook in point.hooks ?? [] { print(hook) }
    if let machine = point.machine { print(machine) }
    if let protection = description.protection { print(protection) }
    Console.print(
      "Chunks         \(Units.size(point.chunkSize))"
        + (point.fingerprint.map { ", fingerprints by \($0)" } ?? ""))
    for disk in description.disks { print(disk) }
  }

  private static func print(_ machine: MachineRecord) {
    let name = machine.name.map { Console.visible($0) } ?? "without a name"
    Console.print(
      "Guest          \(name), \(Console.visible(machine.hypervisor)), by \(machine.way)"
        + (machine.configuration == nil ? "" : "; --config prints its definition"))
  }

  private static func print(_ protection: Protection) {
    Console.print(
      "Protected      "
        + (protection.since.map { "since \($0)" } ?? "by a document that can't be read")
        + (protection.note.map { ": \(Console.visible($0))" } ?? ""))
  }

  private static func print(_ hook: HookRecord) {
    Console.print(
      "Hook           \(hook.phase) \(Console.visible(hook.program)): \(hook.failure ?? "done"), "
        + "\(Units.count(hook.attempts, "attempt")), \(Units.number(hook.milliseconds, digits: 0)) ms"
    )
    for line in hook.output.split(separator: "\n") {
      Console.print("               | \(Console.visible(String(line)))")
    }
  }

  private static func print(_ described: PointDescription.Disk) {
    let disk = described.disk
    Console.print("")
    Console.print("Disk \(disk.name)")
    Console.print("  Source       \(Console.visible(disk.source)) (\(disk.identity))")
    Console.print(
      "  Size         \(Units.size(disk.size)) (\(disk.size) bytes, sectors of \(disk.logicalSectorSize))"
    )
    Console.print(
      "  Changed      \(Units.count(disk.changedChunks - disk.clearedChunks, "chunk")) "
        + "with \(Units.size(disk.changedBytes)); \(Units.count(disk.clearedChunks, "chunk")) became zeros"
    )
    Console.print("  Stored       \(Units.size(disk.storedBytes))")
    Console.print(
      "  Found by     \(disk.changeSource.rawValue), \(Units.size(disk.readBytes)) read"
        + (disk.cut.map { ", cut: \($0.rawValue)" } ?? ""))
    if let reason = disk.scanReason { Console.print("  Read whole   \(Console.visible(reason))") }
    if let reason = disk.newChainReason {
      Console.print("  New chain    \(Console.visible(reason))")
    }
    Console.print("  Chain        \(Units.count(described.layers.count, "layer")), oldest first")
    for layer in described.layers {
      Console.print(
        "    \(layer.id)  \(Units.count(layer.changedChunks, "chunk")), \(layer.storedChunks) stored, "
          + "\(Units.size(layer.size))" + (layer.isKeyframe ? ", keyframe" : ""))
    }
  }
}
