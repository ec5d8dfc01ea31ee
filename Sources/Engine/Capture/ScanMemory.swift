import Platform
import SnapshotRepository

/// How much memory a scan takes: fixed before it starts.
struct ScanMemory {
  /// Bytes that all buffers of a pass may take together; bitmaps and tables come on top.
  static let budget = 96 << 20

  /// Bytes of one read: fits the second-level cache, holds at least one chunk.
  let requestSize: Int
  /// Reads in flight of one worker.
  let depth: Int
  /// Bytes of a worker's output.
  let outputSize: Int

  init(chunkSize: Int) {
    requestSize = max(512 << 10, chunkSize)
    depth = max(2, (2 << 20) / requestSize)
    outputSize = max(4 << 20, chunkSize) + (chunkSize + SegmentFormat.recordHeaderSize)
  }

  private var bytesPerWorker: Int { requestSize * depth + outputSize + (64 << 10) }

  /// One worker a processor, fewer where the budget doesn't allow them.
  func workers(asked: Int?) -> Int {
    max(1, min(asked ?? processorCount(), Self.budget / bytesPerWorker))
  }
}
