import ChangeDetection
import Platform
import SnapshotRepository
import Synchronization

/// What a pass has captured of one disk so far. A chunk may be captured several times while the disk is
/// in use; the last time counts.
///
/// Invariants:
/// - In a round, a word of the bitmaps belongs to the one worker that claimed it; rounds follow one
///   another.
/// - `stored` is a part of `changed`: the chunks whose content is in a segment and its entry in the spool.
final class DiskCapture: Sendable {
  let geometry: ChunkGeometry
  let secret: FingerprintSecret
  let parent: ParentState?
  let changed: ChunkBitmap
  let stored: ChunkBitmap
  let segments: SegmentWriter
  let spool: PassSpool
  /// What interrupted passes stored of this disk; nil: nothing.
  let earlier: EarlierDisk?
  let progress: Progress
  /// Words of 64 chunks that a worker claims at a time: a few MiB, within one group.
  let wordsPerStripe: Int

  private let read = Atomic<Int>(0)
  private let storedContent = Atomic<Int>(0)
  private let adoptedContent = Atomic<Int>(0)

  init(
    geometry: ChunkGeometry, secret: FingerprintSecret, parent: ParentState?,
    segments: SegmentWriter, spool: PassSpool, earlier: EarlierDisk? = nil, progress: Progress
  ) {
    self.geometry = geometry
    self.secret = secret
    self.parent = parent
    self.segments = segments
    self.spool = spool
    self.earlier = earlier
    self.progress = progress
    changed = ChunkBitmap(chunkCount: geometry.chunkCount)
    stored = ChunkBitmap(chunkCount: geometry.chunkCount)
    let stripe = max(1, (4 << 20) / (geometry.chunkSize * ChunkGeometry.chunksPerWord))
    wordsPerStripe = min(stripe, ChunkGeometry.wordsPerGroup)
  }

  /// Bytes read so far.
  var readBytes: Int { read.load(ordering: .relaxed) }
  /// Bytes of records written, those included that a later round made useless.
  var storedBytes: Int { storedContent.load(ordering: .relaxed) }
  /// Bytes of records of interrupted passes that were not written again.
  var adoptedBytes: Int { adoptedContent.load(ordering: .relaxed) }

  /// Bytes of content that changed and isn't zeros.
  var changedBytes: Int {
    let count = stored.population
    guard count > 0 else { return 0 }
    let last = geometry.chunkCount - 1
    return count * geometry.chunkSize
      - (stored[last] ? geometry.chunkSize - geometry.length(of: last) : 0)
  }

  /// The chunks of a word that exist.
  func existing(word: Int) -> UInt64 {
    mask(from: 0, to: min(64, geometry.chunkCount - word * 64))
  }

  /// Bytes of the chunks of a word that `bits` names.
  func byteCount(of bits: UInt64, word: Int) -> Int {
    guard bits != 0 else { return 0 }
    let last = word * 64 + 63 - bits.leadingZeroBitCount
    return (bits.nonzeroBitCount - 1) * geometry.chunkSize + geometry.length(of: last)
  }

  /// What the parent says of a group.
  func parentGroup(_ group: Int) -> ParentGroup { parent?.group(group) ?? .zeros }

  func count(read: Int = 0, stored: Int = 0, adopted: Int = 0) {
    self.read.wrappingAdd(read, ordering: .relaxed)
    adoptedContent.wrappingAdd(adopted, ordering: .relaxed)
    storedContent.wrappingAdd(stored, ordering: .relaxed)
  }
}
