import CommandLineArguments
import Engine

enum TrackCommand: Command {
  private static let action = Argument("ACTION", help: "start, stop or status")
  private static let devices = RepeatedArgument(
    "DEVICE", atLeast: 0, help: "Block devices: whole disks or partitions")
  private static let collection = Option(
    "collection", value: "COLLECTION", help: "The block devices that a collection remembers")
  private static let all = Flag(
    "all", help: "With stop: every tracker, also of devices that are gone")

  static let declaration = CommandDeclaration(
    name: "track", summary: "Track the writes to block devices, so that snapshots read only those",
    usage: [
      "start DEVICE...", "start --collection COLLECTION", "stop DEVICE...", "stop --all", "status",
    ],
    discussion: """
      A tracker is an eBPF program in the kernel; no process has to run. It ends with stop or at a \
      restart of the machine. The first snapshot after its start reads the whole disk, later ones what was \
      written since. It sees what passes this kernel's block layer: not another host on a shared disk, \
      not passthrough commands, and not writes to the file behind a loop device. Therefore every snapshot \
      also reads some chunks that were not marked, and distrusts a tracker that missed one.
      """,
    arguments: [action, devices], options: [collection, all],
    examples: [
      Example("strobe track start /dev/vg/os /dev/vg/data", ""), Example("strobe track status", ""),
      Example("strobe track stop --all", ""),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage"),
      ExitStatus(3, "status: a tracker lost writes; the next snapshot reads the whole disk"),
    ])

  private enum Action: String { case start, stop, status }

  static func run(_ values: ParsedValues) throws -> Int32 {
    guard let action = Action(rawValue: values[action]) else {
      throw UsageError(
        "'\(values[action])' is none of start, stop, status", advice: "see strobe track --help")
    }
    var paths = values[devices]
    if let name = values[collection] {
      paths += try Common.engine(values).blockDevices(of: name)
    }
    if values[all], action != .stop || !paths.isEmpty {
      throw UsageError("--all goes with stop alone", advice: "see strobe track --help")
    }
    guard action == .status || values[all] || !paths.isEmpty else {
      throw UsageError(
        "track \(action.rawValue) needs devices", advice: "name them, or --collection")
    }
    switch action {
    case .start: for path in paths { try start(path, values) }
    case .stop where values[all]: try say("Stopped", DeviceTracking.stopAll(), values)
    case .stop: for path in paths { try say("Stopped", [DeviceTracking.stop(path)], values) }
    case .status: return try status(paths, values)
    }
    if values[Common.json] { return try status(paths, values) }
    return 0
  }

  private static func start(_ path: String, _ values: ParsedValues) throws {
    do {
      try say("Tracking", [DeviceTracking.start(path)], values)
    } catch let error as StrobeError where error.reason == .exists {
      // At boot, in scripts: what is asked for is there.
      try say("Tracking already", [path], values)
    }
  }

  private static func say(_ verb: String, _ names: [String], _ values: ParsedValues) throws {
    guard !values[Common.quiet], !values[Common.json] else { return }
    for name in names { Console.print("\(verb) \(name).") }
    if names.isEmpty { Console.print("No tracker was running.") }
  }

  private static func status(_ paths: [String], _ values: ParsedValues) throws -> Int32 {
    let trackers = try DeviceTracking.status(paths)
    if values[Common.json] {
      try Console.print(json: trackers)
    } else {
      print(trackers)
    }
    return trackers.contains { $0.lost != nil } ? 3 : 0
  }

  private static func print(_ trackers: [DeviceTracking.Status]) {
    guard !trackers.isEmpty else {
      Console.print("No tracker is running.")
      return
    }
    var table = Table(["DEVICE", "SINCE", "WRITTEN", "COUNTS FROM", "STATE"], rightAligned: [2])
    for tracker in trackers {
      table.add([
        tracker.device, tracker.since.description, Units.size(tracker.writtenBytes),
        tracker.point.map { String($0.prefix(12)) } ?? "no point yet",
        tracker.lost.map { "lost: \($0)" } ?? "tracking",
      ])
    }
    table.print()
  }
}
