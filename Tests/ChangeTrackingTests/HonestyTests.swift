import ChangeTracking
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@Suite("Honesty of trackers", .serialized, .enabled(if: canTrack, "needs loop devices and BTF"))
struct HonestyTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  /// Writers write, mirrors exchange without a pause, and in the end all must agree.
  private func follow(_ mirrors: [Mirror], while write: @escaping @Sendable () throws -> Int) throws
  {
    let writing = Writing(write)
    let join = try #require(inBackground { writing.run() })
    var failure: StrobeError?
    while !writing.isDone.load(ordering: .acquiring) && failure == nil {
      do throws(StrobeError) { for mirror in mirrors { try mirror.update() } } catch {
        failure = error
      }
    }
    join()
    #expect(failure == nil)
    #expect(writing.failure.withLock { $0 } == nil)
    for mirror in mirrors { try mirror.finish() }
    let count = writing.count.load(ordering: .relaxed)
    print("tracked \(count) writes in \(mirrors.map(\.rounds)) exchanges")
  }

  /// Writers on a thread of their own.
  private final class Writing: Sendable {
    let isDone = Atomic<Bool>(false)
    let count = Atomic<Int>(0)
    let failure = Mutex<String?>(nil)
    private let write: @Sendable () throws -> Int

    init(_ write: @escaping @Sendable () throws -> Int) { self.write = write }

    func run() {
      do { count.store(try write(), ordering: .relaxed) } catch {
        failure.withLock { $0 = "\(error)" }
      }
      isDone.store(true, ordering: .releasing)
    }
  }

  private let writes = Machine.runsLong ? 100_000 : 1_500
  private let rounds = Machine.runsLong ? 100 : 3

  @Test(
    "Sixteen writers on a loop device while marks are taken without a pause",
    .enabled(if: Machine.has("fio"), "needs fio"))
  func parallelWriters() throws {
    let disk = try LoopDevice(size: 64 << 20, in: folder)
    let tracker = try ChangeTracker.transient(on: [number(disk.path)])[0]
    let path = disk.path
    let mirror = try Mirror(tracker, path)
    try follow([mirror]) { [writes] in
      try writeRandomly(path, jobs: 16, writes: writes, depth: 8, seed: 1)
    }
    for round in 0..<rounds {
      try follow([mirror]) { try writeOnce(path, size: 64 << 20, seed: 100 + round) }
    }
  }

  @Test(
    "Sixteen writers on a disk that takes bios without making requests",
    .enabled(if: ZRAMDisk.isAvailable, "needs zram"),
    .enabled(if: Machine.has("fio"), "needs fio"))
  func bioBased() throws {
    let disk = try ZRAMDisk(size: 64 << 20)
    let tracker = try ChangeTracker.transient(on: [number(disk.path)])[0]
    let path = disk.path
    let mirror = try Mirror(tracker, path)
    try follow([mirror]) { [writes] in
      try writeRandomly(path, jobs: 16, writes: writes, depth: 8, seed: 2)
    }
    for round in 0..<rounds {
      try follow([mirror]) { try writeOnce(path, size: 64 << 20, seed: 200 + round) }
    }
  }

  @Test(
    "Writers on a disk and on its partitions, tracked as disk and as partitions",
    .enabled(if: Machine.has("fio", "sfdisk"), "needs fio and sfdisk"))
  func partitions() throws {
    let disk = try PartitionedLoop(mebibytes: 24, in: folder)
    let paths = [disk.disk.path] + disk.partitions
    let trackers = try ChangeTracker.transient(on: paths.map { try number($0) })
    let mirrors = try zip(trackers, paths).map { try Mirror($0, $1) }
    let (writes, start, size) = (writes, disk.starts[0], disk.sizes[0])
    try follow(mirrors) {
      var count = 0
      for round in 0..<3 {
        let partition = paths[1 + round % 2]
        count += try writeRandomly(partition, jobs: 4, writes: writes, depth: 4, seed: 10 + round)
        // Through the disk into the first partition.
        count += try writeRandomly(
          paths[0], jobs: 4, writes: writes, depth: 4, seed: 20 + round,
          options: ["--offset=\(start)", "--size=\(size)"])
      }
      return count
    }
  }

  @Test(
    "Writes of all kinds and sizes, on a disk and its partitions",
    .enabled(if: Machine.has("blkdiscard", "sfdisk"), "needs blkdiscard and sfdisk"),
    arguments: [1, 2])
  func mixture(seed: UInt64) throws {
    let disk = try PartitionedLoop(mebibytes: 16, in: folder)
    let paths = [disk.disk.path] + disk.partitions
    let sizes = [36 << 20] + disk.sizes
    let trackers = try ChangeTracker.transient(on: paths.map { try number($0) })
    let mirrors = try zip(trackers, paths).map { try Mirror($0, $1) }
    let rounds = Machine.runsLong ? 3000 : 150
    try follow(mirrors) {
      var generator = SeededGenerator(seed: seed)
      for _ in 0..<rounds {
        let which = Int.random(in: 0..<3, using: &generator)
        // The partition table at either end of the disk stays.
        let end = sizes[which] >> 12
        let first = Int.random(in: which == 0 ? 512..<end - 512 : 0..<end - 1, using: &generator)
        let limit = min(1 << Int.random(in: 0..<9, using: &generator), end - first)
        let pages = Int.random(in: 1...limit, using: &generator)
        if which == 0 && first + pages > end - 256 { continue }
        try writeSomehow(paths[which], first << 12, pages << 12, &generator)
      }
      return rounds
    }
  }

  /// Writes a range with O_DIRECT, through the page cache, or by discarding or zeroing it.
  private func writeSomehow(
    _ path: String, _ offset: Int, _ count: Int, _ generator: inout SeededGenerator
  ) throws {
    switch Int.random(in: 0..<6, using: &generator) {
    case 0:
      let words = ["blkdiscard", "--force", "--offset", "\(offset)", "--length", "\(count)", path]
      let result = try Shell.capture(words)
      #expect(result.status == 0, "\(result.errors)")
    case 1:
      let words = ["blkdiscard", "--force", "--zeroout", "--offset", "\(offset)"]
      let result = try Shell.capture(words + ["--length", "\(count)", path])
      #expect(result.status == 0, "\(result.errors)")
    case 2: try writeBytes(generator.bytes(count), to: path, at: offset)
    default:
      let file = try FileDescriptor(opening: path, O_RDWR | directFlag)
      let buffer = AlignedBuffer(count: count)
      unsafe buffer.bytes.copyBytes(from: generator.bytes(count))
      try unsafe file.write(UnsafeRawBufferPointer(buffer.bytes), at: offset)
    }
  }
}
