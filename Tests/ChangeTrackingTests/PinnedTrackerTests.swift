import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Pinned trackers", .serialized, .enabled(if: canTrack, "needs loop devices and BTF"))
struct PinnedTrackerTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let pins = PinPlace()

  private func write(_ disk: LoopDevice, at offset: Int = 0) throws {
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.path, at: offset)
  }

  @Test("A pinned tracker goes on marking while nobody holds it, and keeps its base")
  func survives() throws {
    let disk = try LoopDevice(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    #expect(try ChangeTracker.openPinned(device, in: pins.place) == nil)
    try ChangeTracker.startPinned(device, in: pins.place)
    try write(disk, at: 5 << 14)
    let base = TrackerBase(
      collection: randomBytes(12), point: randomBytes(12), disk: "system disk")
    do {
      let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
      #expect(tracker.lossReason == nil)
      #expect(tracker.isPinned && tracker.base == nil)
      tracker.setBase(base)
      #expect(ranges(tracker.exchange()) == [5 << 14..<6 << 14])
    }
    try write(disk, at: 7 << 14)
    let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
    #expect(tracker.base == base)
    #expect(ranges(tracker.exchange()) == [7 << 14..<8 << 14])
    tracker.setBase(nil)
    #expect(tracker.base == nil)
  }

  @Test("There is one tracker a device, one pass at a time, and stopping leaves nothing")
  func lifeCycle() throws {
    let disks = try (0..<2).map { _ in try LoopDevice(size: 16 << 20, in: folder) }
    let devices = try disks.map { try number($0.path) }
    for device in devices { try ChangeTracker.startPinned(device, in: pins.place) }
    expect(.exists) { try ChangeTracker.startPinned(devices[0], in: pins.place) }
    #expect(try ChangeTracker.status(in: pins.place).map(\.device) == devices)
    try write(disks[1])
    let programs: [UInt32]
    do {
      let tracker = try #require(try ChangeTracker.openPinned(devices[0], in: pins.place))
      programs = tracker.programNumbers
      expect(.busy) { _ = try ChangeTracker.openPinned(devices[0], in: pins.place) }
      expect(.busy) { try ChangeTracker.stopPinned(devices[0], in: pins.place) }
      #expect(!tracker.hasMarks)
    }
    let status = try ChangeTracker.status(in: pins.place)
    #expect(status.map(\.markedBytes) == [0, 16384])
    #expect(status.allSatisfy { $0.lossReason == nil && $0.base == nil && $0.tracker.count == 32 })
    #expect(status.map(\.name) == disks.map { lastComponent($0.path) })
    try ChangeTracker.stopPinned(devices[0], in: pins.place)
    expect(.notFound) { try ChangeTracker.stopPinned(devices[0], in: pins.place) }
    // The other goes on.
    try write(disks[1], at: 1 << 20)
    #expect(try ChangeTracker.status(in: pins.place).map(\.markedBytes) == [32768])
    try ChangeTracker.stopPinned(devices[1], in: pins.place)
    #expect(try FileFacts(path: pins.place.root) == nil)
    for _ in 0..<1000 where programs.contains(where: ChangeTracker.programExists) {
      usleep(10_000)
    }
    #expect(programs.count == 5 && !programs.contains(where: ChangeTracker.programExists))
  }

  @Test("A disk and its partition are tracked side by side")
  func partition() throws {
    let disk = try PartitionedLoop(mebibytes: 8, in: folder)
    let devices = try [disk.disk.path, disk.partitions[1]].map { try number($0) }
    for device in devices { try ChangeTracker.startPinned(device, in: pins.place) }
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.partitions[1], at: 1 << 20)
    let place = (disk.starts[1] + (1 << 20)) & ~16383
    let trackers = try devices.map { try ChangeTracker.openPinned($0, in: pins.place) }
    #expect(ranges(trackers[0]!.exchange()) == [place..<place + 16384])
    #expect(ranges(trackers[1]!.exchange()) == [1 << 20..<(1 << 20) + 16384])
  }

  @Test("A device that was detached and attached again is another: lost, and replaced by a start")
  func attachedAgain() throws {
    let disk = try NumberedLoop(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    try ChangeTracker.startPinned(device, in: pins.place)
    try disk.detach()
    #expect(try ChangeTracker.status(in: pins.place)[0].lossReason != nil)
    try disk.attach()
    do {
      let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
      #expect(tracker.lossReason == "another disk has taken the device's place")
      expect(.busy) { try ChangeTracker.startPinned(device, in: pins.place) }
      withExtendedLifetime(tracker) {}
    }
    try ChangeTracker.startPinned(device, in: pins.place)
    #expect(try ChangeTracker.status(in: pins.place).map(\.lossReason) == [nil])
  }

  @Test("A lost tracker is replaced by a start, and the new one believed")
  func replaced() throws {
    let disk = try LoopDevice(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    try ChangeTracker.startPinned(device, in: pins.place)
    let first = try ChangeTracker.status(in: pins.place)[0]
    try Shell.run("truncate", "-s", "24M", disk.backing)
    try Shell.run("losetup", "-c", disk.path)
    #expect(try ChangeTracker.status(in: pins.place)[0].lossReason?.contains("size") == true)
    try ChangeTracker.startPinned(device, in: pins.place)
    let second = try ChangeTracker.status(in: pins.place)[0]
    #expect(second.lossReason == nil && second.size == 24 << 20)
    #expect(second.tracker != first.tracker)
    try write(disk, at: 20 << 20)
    let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
    #expect(ranges(tracker.exchange()) == [20 << 20..<(20 << 20) + 16384])
  }

  @Test("A pin that is removed loses the tracker, also while it is open", arguments: 0..<9)
  func removedPin(index: Int) throws {
    let disk = try LoopDevice(size: 16 << 20, in: folder)
    let other = try LoopDevice(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    try ChangeTracker.startPinned(device, in: pins.place)
    let names = pins.pins.filter { !$0.hasPrefix("window-") }.sorted()
    #expect(names.count == 9)
    let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
    try removeFile(pins.place.root + "/" + names[index])
    if names[index].hasPrefix("link-") {
      #expect(tracker.lossReason?.contains(names[index]) == true)
    }
    let status = try ChangeTracker.status(in: pins.place)
    #expect(status[0].lossReason?.contains(names[index]) == true)
    // A start for another device makes a new set; the old window stays lost until it is stopped.
    try ChangeTracker.startPinned(number(other.path), in: pins.place)
    let both = try ChangeTracker.status(in: pins.place)
    #expect(both.first { $0.device == device }?.lossReason != nil)
    #expect(both.first { $0.device != device }?.lossReason == nil)
    #expect(tracker.lossReason != nil)
    withExtendedLifetime(tracker) {}
  }

  @Test("The tracker of a device that is gone shows, and can be stopped")
  func vanished() throws {
    let disk = try PartitionedLoop(mebibytes: 8, in: folder)
    let device = try number(disk.partitions[1])
    try ChangeTracker.startPinned(device, in: pins.place)
    #expect(try ChangeTracker.stopVanished(in: pins.place).isEmpty)
    try Shell.run("partx", "--delete", "--nr", "2", disk.disk.path)
    let status = try ChangeTracker.status(in: pins.place)
    #expect(status[0].lossReason == "the device is gone" && status[0].name == nil)
    #expect(try ChangeTracker.stopVanished(in: pins.place) == [device])
    #expect(try FileFacts(path: pins.place.root) == nil)
  }

  @Test("A pass that died leaves a tracker without a base, and its lock free")
  func killedPass() async throws {
    let disk = try LoopDevice(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    try ChangeTracker.startPinned(device, in: pins.place)
    do {
      let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
      tracker.setBase(
        TrackerBase(collection: randomBytes(12), point: randomBytes(12), disk: "a"))
    }
    let (path, root) = (disk.path, pins.place.root)
    await #expect(processExitsWith: .signal(SIGKILL)) {
      [path = path as String, root = root as String] in
      let tracker = try ChangeTracker.openPinned(number(path), in: TrackerPlace(root: root))
      tracker?.setBase(nil)
      _ = tracker?.exchange()
      kill(getpid(), SIGKILL)
    }
    let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
    #expect(tracker.base == nil && tracker.lossReason == nil)
    try write(disk)
    #expect(tracker.hasMarks)
  }

  private func expect(_ reason: StrobeError.Reason, _ body: () throws -> Void) {
    let error = #expect(throws: StrobeError.self) { try body() }
    #expect(error?.reason == reason)
  }
}
