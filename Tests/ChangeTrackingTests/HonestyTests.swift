import ChangeTracking
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

/// What a tracker takes while others write, and what it was worth in the end.
///
/// A *mirror* is a copy of the device that is brought up to date only with blocks that the tracker
/// named. When the writers have ended, one more exchange must make it equal to the device: a write that
/// was in flight when its mark was taken has to be marked again.
private final class Mirror: @unchecked Sendable {
  // Sendable: one thread at a time.
  let tracker: ChangeTracker
  let path: String
  let first: [UInt8]
  var copy: [UInt8]
  let all: MarkedBlocks
  private(set) var rounds = 0

  init(_ tracker: ChangeTracker, _ path: String) throws(StrobeError) {
    self.tracker = tracker
    self.path = path
    first = try contents(path, size: tracker.size)
    copy = first
    // What was written before the copy was made is in it.
    all = tracker.exchange()
  }

  func update() throws(StrobeError) {
    let marked = tracker.exchange()
    rounds += 1
    var ranges: [Range<Int>] = []
    marked.forEachRange { ranges.append($0) }
    try readDirect(path, ranges, into: &copy)
    all.formUnion(marked)
  }

  /// The last exchange, after which everything has to agree.
  func finish() throws(StrobeError) {
    try update()
    let now = try contents(path, size: tracker.size)
    #expect(tracker.lossReason == nil)
    #expect(differences(copy, now).isEmpty, "mirror of \(path) after \(rounds) rounds")
    var marked: [Range<Int>] = []
    all.forEachRange { marked.append($0) }
    let missed = differences(first, now).filter { piece in
      !marked.contains { $0.lowerBound <= piece.lowerBound && $0.upperBound >= piece.upperBound }
    }
    #expect(missed.isEmpty, "changed but never marked")
  }
}

/// Runs fio to its end.
/// - Returns: how many writes it made.
private func writeRandomly(
  _ path: String, jobs: Int, writes: Int, depth: Int, seed: Int, options: [String] = []
) throws -> Int {
  let result = try Shell.capture(
    [
      "fio", "--name=w", "--filename=\(path)", "--rw=randwrite", "--bs=4k", "--ioengine=libaio",
      "--direct=1", "--iodepth=\(depth)", "--numjobs=\(jobs)", "--number_ios=\(writes)",
      "--randseed=\(seed)", "--norandommap", "--group_reporting", "--thread",
      "--refill_buffers", "--randrepeat=1", "--output-format=terse", "--allow_file_create=0",
    ] + options)
  guard result.status == 0 else { throw Shell.Failure(description: "fio: \(result.errors)") }
  return jobs * writes
}

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

  private let writes = isLong ? 100_000 : 1_500

  @Test(
    "Sixteen writers on a loop device while marks are taken without a pause",
    .enabled(if: Machine.has("fio"), "needs fio"))
  func parallelWriters() throws {
    let disk = try LoopDevice(size: 64 << 20, in: folder)
    let tracker = try ChangeTracker.transient(on: [number(disk.path)])[0]
    let path = disk.path
    try follow([Mirror(tracker, path)]) { [writes] in
      try writeRandomly(path, jobs: 16, writes: writes, depth: 8, seed: 1)
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
    try follow([Mirror(tracker, path)]) { [writes] in
      try writeRandomly(path, jobs: 16, writes: writes, depth: 8, seed: 2)
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
}
