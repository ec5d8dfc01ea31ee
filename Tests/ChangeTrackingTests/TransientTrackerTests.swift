import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Transient trackers", .enabled(if: canTrack, "needs loop devices and BTF"))
struct TransientTrackerTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  private func disk(_ size: Int = 16 << 20) throws -> LoopDevice {
    try LoopDevice(size: size, in: folder)
  }

  private func track(_ paths: String...) throws -> [ChangeTracker] {
    try ChangeTracker.transient(on: paths.map { try number($0) })
  }

  private func write(_ path: String, at offset: Int, count: Int = 8192) throws {
    try writeBytes([UInt8](repeating: 1, count: count), to: path, at: offset)
  }

  @Test("Nothing is marked before the first write, and only its blocks after it")
  func oneWrite() throws {
    let disk = try disk()
    let tracker = try track(disk.path)[0]
    #expect(tracker.blockSize == 16384 && !tracker.isPinned && tracker.base == nil)
    #expect(!tracker.hasMarks)
    try write(disk.path, at: 3 << 14)
    #expect(tracker.hasMarks)
    #expect(tracker.isMarked(3 << 14..<(3 << 14) + 1))
    #expect(!tracker.isMarked(2 << 14..<3 << 14))
    #expect(!tracker.isMarked(4 << 14..<16 << 20))
    #expect(tracker.markedBytes == 16384)
    let blocks = tracker.exchange()
    #expect(ranges(blocks) == [3 << 14..<4 << 14])
    #expect(blocks.byteCount == 16384 && !blocks.isEverything && !blocks.isEmpty)
    #expect(!tracker.hasMarks && tracker.lossReason == nil)
    #expect(tracker.exchange().isEmpty)
  }

  @Test("Reading and flushing mark nothing")
  func reading() throws {
    let disk = try disk()
    let tracker = try track(disk.path)[0]
    _ = try contents(disk.path, size: 16 << 20)
    let file = try FileDescriptor(opening: disk.path, O_RDWR)
    try file.synchronize()
    #expect(!tracker.hasMarks)
  }

  @Test("Two devices are told apart, and a third one is nobody's concern")
  func severalDevices() throws {
    let disks = try (0..<3).map { _ in try disk() }
    let trackers = try track(disks[0].path, disks[1].path)
    try write(disks[2].path, at: 0)
    #expect(!trackers[0].hasMarks && !trackers[1].hasMarks)
    try write(disks[1].path, at: 16384)
    #expect(!trackers[0].hasMarks)
    #expect(ranges(trackers[1].exchange()) == [16384..<32768])
    try write(disks[0].path, at: 0)
    #expect(ranges(trackers[0].exchange()) == [0..<16384])
    #expect(!trackers[1].hasMarks)
  }

  @Test("One tracker of a set ends without the other")
  func endOfOne() throws {
    let disks = try (0..<2).map { _ in try disk() }
    var trackers = try track(disks[0].path, disks[1].path)
    trackers.removeFirst()
    try write(disks[0].path, at: 0)
    try write(disks[1].path, at: 0)
    #expect(ranges(trackers[0].exchange()) == [0..<16384])
  }

  @Test("The last block ends with a device that is no whole number of blocks")
  func clipping() throws {
    let size = (1 << 20) + 4096
    let disk = try disk(size)
    let tracker = try track(disk.path)[0]
    try write(disk.path, at: 1 << 20, count: 4096)
    #expect(tracker.markedBytes <= size)
    #expect(ranges(tracker.exchange()) == [1 << 20..<size])
  }

  @Test("What was taken can be put back, also when it was everything")
  func merge() throws {
    let disk = try disk()
    let tracker = try track(disk.path)[0]
    try write(disk.path, at: 0)
    let first = tracker.exchange()
    try write(disk.path, at: 1 << 20)
    tracker.merge(first)
    let both = tracker.exchange()
    #expect(ranges(both) == [0..<16384, 1 << 20..<(1 << 20) + 16384])
    first.formUnion(both)
    #expect(ranges(first) == ranges(both))
  }

  @Test(
    "A write through a partition is marked at its place on the disk, once",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func partition() throws {
    let disk = try PartitionedLoop(mebibytes: 8, in: folder)
    let trackers = try track(disk.disk.path, disk.partitions[0], disk.partitions[1])
    let offset = 2 << 20
    try write(disk.partitions[1], at: offset, count: 4096)
    let place = (disk.starts[1] + offset) & ~16383
    #expect(ranges(trackers[0].exchange()) == [place..<place + 16384])
    #expect(!trackers[1].hasMarks)
    #expect(ranges(trackers[2].exchange()) == [offset..<offset + 16384])
    // And the other way: through the disk into the first partition, past its odd beginning.
    try write(disk.disk.path, at: disk.starts[0] + 16384 - 4096, count: 8192)
    #expect(ranges(trackers[1].exchange()) == [0..<32768])
    #expect(!trackers[2].hasMarks)
  }

  @Test(
    "A discard of gigabytes is marked, exactly in whole blocks",
    .enabled(if: Machine.has("blkdiscard"), "needs blkdiscard"))
  func largeDiscard() throws {
    // Only discarded: zeroing would fill the memory that the file lies in.
    let size = 24 << 30
    let disk = try disk(size)
    let tracker = try track(disk.path)[0]
    for (offset, length) in [
      (512, 512), (16384 - 512, 1024), (4096, 255 << 20), (256 << 20, 256 << 20),
      ((256 << 20) - 4096, (256 << 20) + 8192), (3 << 20, 9 << 30), (12345 << 12, 11 << 30),
      (0, size),
    ] {
      try discard(disk.path, [], offset, length)
      try expectMarks(tracker, offset, length)
      // Or the rest would fill memory.
      try #require(try Shell.run("stat", "-c", "%b", disk.backing) == "0\n")
    }
  }

  @Test(
    "Zeroing is marked", .enabled(if: Machine.has("blkdiscard"), "needs blkdiscard"))
  func zeroing() throws {
    let disk = try disk()
    let tracker = try track(disk.path)[0]
    for (offset, length) in [(512, 512), (16384 - 512, 1024), (3 << 14, 4 << 20)] {
      try discard(disk.path, ["--zeroout"], offset, length)
      try expectMarks(tracker, offset, length)
    }
  }

  private func discard(_ path: String, _ options: [String], _ offset: Int, _ length: Int) throws {
    let words = ["blkdiscard", "--offset", "\(offset)", "--length", "\(length)"]
    let result = try Shell.capture(words + options + [path])
    #expect(result.status == 0, "\(result.errors)")
  }

  private func expectMarks(_ tracker: ChangeTracker, _ offset: Int, _ length: Int) throws {
    let expected = offset & ~16383..<min(tracker.size, (offset + length + 16383) & ~16383)
    #expect(tracker.markedBytes == expected.count)
    let marked = tracker.exchange()
    #expect(!marked.isEverything)
    #expect(ranges(marked) == [expected], "\(offset) + \(length)")
    tracker.merge(marked)
    #expect(ranges(tracker.exchange()) == [expected])
  }

  @Test("A device that isn't there can't be tracked; no devices need no trackers")
  func noDevice() throws {
    let error = #expect(throws: StrobeError.self) {
      try ChangeTracker.transient(on: [DeviceNumber(major: 240, minor: 77)])
    }
    #expect(error?.reason == .notFound)
    #expect(try ChangeTracker.transient(on: []).isEmpty)
  }

  @Test("A bitmap of a disk of 64 TiB stays below 64 MiB")
  func hugeDisk() throws {
    let disk = try disk(64 << 40)
    let tracker = try track(disk.path)[0]
    #expect(tracker.blockSize > 16384 && tracker.size / tracker.blockSize / 8 <= 64 << 20)
    try write(disk.path, at: (64 << 40) - 8192)
    #expect(ranges(tracker.exchange()) == [(64 << 40) - tracker.blockSize..<64 << 40])
  }

  @Test("Another disk behind the same name, another size: lost")
  func loss() throws {
    let disk = try disk()
    let tracker = try track(disk.path)[0]
    #expect(tracker.lossReason == nil)
    try Shell.run("truncate", "-s", "20M", disk.backing)
    try Shell.run("losetup", "-c", disk.path)
    #expect(tracker.lossReason?.contains("size") == true)
  }

  @Test(
    "More writes in flight than the table holds: everything is marked, and said why",
    .enabled(if: ZRAMDisk.isAvailable, "needs zram"),
    .enabled(if: Machine.has("fio"), "needs fio"))
  func overflow() throws {
    let disk = try ZRAMDisk(size: 32 << 20)
    let tracker = try ChangeTracker.transient(on: [number(disk.path)], pendingLimit: 1)[0]
    var blocks = tracker.exchange()
    for round in 0..<200 where !blocks.isEverything {
      _ = try writeRandomly(disk.path, jobs: 8, writes: 4000, depth: 4, seed: round)
      blocks = tracker.exchange()
    }
    #expect(blocks.isEverything)
    #expect(blocks.everythingReason?.contains("in flight") == true)
    #expect(ranges(blocks) == [0..<32 << 20])
    #expect(tracker.lossReason == nil)
    #expect(!tracker.exchange().isEverything)
    tracker.merge(blocks)
    #expect(tracker.isMarked(0..<1) && tracker.markedBytes == 32 << 20)
    #expect(tracker.exchange().isEverything)
  }

  @Test("A process that is killed leaves no program behind")
  func killed() async throws {
    let disk = try disk()
    let (path, note) = (disk.path, folder.file("programs"))
    await #expect(processExitsWith: .signal(SIGKILL)) {
      [path = path as String, note = note as String] in
      let trackers = try ChangeTracker.transient(on: [number(path)])
      let numbers = trackers[0].programNumbers.map { "\($0)" }.joined(separator: " ")
      try writeBytes(Array(numbers.utf8), to: note)
      kill(getpid(), SIGKILL)
    }
    let numbers = try #require(readText(note)).split(separator: " ").compactMap { UInt32($0) }
    #expect(numbers.count == 5)
    // The kernel frees a program some time after its last user went.
    for _ in 0..<1000 where numbers.contains(where: ChangeTracker.programExists) { usleep(10_000) }
    #expect(!numbers.contains(where: ChangeTracker.programExists))
  }

  @Test("Who may not use eBPF is told so")
  func notPermitted() async throws {
    let disk = try disk()
    let path = disk.path
    let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
      [path = path as String] in
      let device = try number(path)
      try #require(setuid(65534) == 0)
      let error = #expect(throws: StrobeError.self) {
        try ChangeTracker.transient(on: [device])
      }
      #expect(error?.message == "changes can't be tracked: eBPF is not permitted")
      #expect(error?.errno == EPERM)
    }
    let said = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(!said.contains("libbpf"))
  }
}
