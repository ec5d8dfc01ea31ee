import ChangeTracking
import Platform
import TestSupport
import Testing

/// What a tracker takes while others write, and what it was worth in the end.
///
/// A *mirror* is a copy of the device that is brought up to date only with blocks that the tracker
/// named. When the writers have ended, one more exchange must make it equal to the device: a write that
/// was in flight when its mark was taken has to be marked again.
final class Mirror: @unchecked Sendable {
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

/// Runs fio to its end: small writes, many in flight, everywhere on the device.
/// - Returns: how many writes it made.
func writeRandomly(
  _ path: String, jobs: Int, writes: Int, depth: Int, seed: Int, options: [String] = []
) throws -> Int {
  try runFio(
    path, seed,
    [
      "--bs=4k", "--iodepth=\(depth)", "--numjobs=\(jobs)", "--number_ios=\(writes)",
      "--norandommap", "--io_size=1t",
    ] + options)
  return jobs * writes
}

/// Runs fio to its end: every byte of the device is written once, in large writes that take long enough
/// for a read to overtake them, so that no later write makes good for a mark that was missed.
/// - Returns: how many writes it made.
func writeOnce(_ path: String, size: Int, seed: Int) throws -> Int {
  let part = size / 2
  try runFio(
    path, seed,
    ["--bs=512k", "--iodepth=1", "--numjobs=2", "--size=\(part)", "--offset_increment=\(part)"])
  return size >> 19
}

private func runFio(_ path: String, _ seed: Int, _ options: [String]) throws {
  let result = try Shell.capture(
    [
      "fio", "--name=w", "--filename=\(path)", "--rw=randwrite", "--ioengine=libaio", "--direct=1",
      "--randseed=\(seed)", "--group_reporting", "--thread", "--refill_buffers",
      "--allow_file_create=0",
    ] + options)
  guard result.status == 0 else { throw Shell.Failure(description: "fio: \(result.errors)") }
}
