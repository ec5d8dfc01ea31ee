import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository
import Synchronization

/// The scan of one disk: what its workers share.
///
/// Invariant: a word of the bitmaps belongs to the one worker that claimed it.
final class DiskScan: Sendable {
  let source: DiskSource
  let geometry: ChunkGeometry
  let secret: FingerprintSecret
  let parent: ParentState?
  let changed: ChunkBitmap
  let stored: ChunkBitmap
  let segments: SegmentWriter
  let spool: PassSpool
  let progress: Progress
  let stop: CancellationFlag
  /// Words of 64 chunks that a worker claims at a time: a few MiB, within one group.
  let wordsPerStripe: Int

  /// Chunks that surely read as zeros, or nil when nothing is known.
  private let holes: ChunkBitmap?
  private let nextWord = Atomic<Int>(0)
  private let read = Atomic<Int>(0)
  private let changedContent = Atomic<Int>(0)
  private let storedContent = Atomic<Int>(0)

  init(
    source: DiskSource, geometry: ChunkGeometry, secret: FingerprintSecret, parent: ParentState?,
    segments: SegmentWriter, spool: PassSpool, progress: Progress, stop: CancellationFlag
  ) {
    self.source = source
    self.geometry = geometry
    self.secret = secret
    self.parent = parent
    self.segments = segments
    self.spool = spool
    self.progress = progress
    self.stop = stop
    changed = ChunkBitmap(chunkCount: geometry.chunkCount)
    stored = ChunkBitmap(chunkCount: geometry.chunkCount)
    let stripe = max(1, (4 << 20) / (geometry.chunkSize * ChunkGeometry.chunksPerWord))
    wordsPerStripe = min(stripe, ChunkGeometry.wordsPerGroup)
    holes = Self.holes(source, geometry, stop)
  }

  private static func holes(
    _ source: DiskSource, _ geometry: ChunkGeometry, _ stop: CancellationFlag
  ) -> ChunkBitmap? {
    var bitmap: ChunkBitmap?
    source.forEachHole(stop: stop) { hole in
      let first = (hole.lowerBound + geometry.chunkSize - 1) / geometry.chunkSize
      let end =
        hole.upperBound == geometry.diskSize
        ? geometry.chunkCount : hole.upperBound / geometry.chunkSize
      guard first < end else { return }
      let known = bitmap ?? ChunkBitmap(chunkCount: geometry.chunkCount)
      known.insert(first..<end)
      bitmap = known
    }
    return bitmap
  }

  /// Bytes read so far.
  var readBytes: Int { read.load(ordering: .relaxed) }
  /// Bytes of content that changed and isn't zeros.
  var changedBytes: Int { changedContent.load(ordering: .relaxed) }
  /// Bytes of records written.
  var storedBytes: Int { storedContent.load(ordering: .relaxed) }

  /// The words of the next stripe, or nil when the disk is done.
  func claim() -> Range<Int>? {
    let first = nextWord.wrappingAdd(wordsPerStripe, ordering: .relaxed).oldValue
    guard first < geometry.wordCount else { return nil }
    return first..<min(first + wordsPerStripe, geometry.wordCount)
  }

  /// The chunks of a word that exist.
  func existing(word: Int) -> UInt64 {
    mask(from: 0, to: min(64, geometry.chunkCount - word * 64))
  }

  /// The chunks of a word that surely read as zeros.
  func holes(word: Int) -> UInt64 { holes?[word: word] ?? 0 }

  func count(read: Int = 0, changed: Int = 0, stored: Int = 0) {
    self.read.wrappingAdd(read, ordering: .relaxed)
    changedContent.wrappingAdd(changed, ordering: .relaxed)
    storedContent.wrappingAdd(stored, ordering: .relaxed)
  }
}

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
