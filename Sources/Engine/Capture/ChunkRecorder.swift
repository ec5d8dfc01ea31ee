import ChangeDetection
import ChunkCodec
import Platform
import SnapshotRepository

// The hot loop's inside: for each chunk: zero? → fingerprint → differs from the parent's? → LZ4 → output
// buffer. After an interrupted pass: differs → stored by it already? → only its location is kept.

/// Takes chunks as they were read and keeps those that changed.
struct ChunkRecorder: ~Copyable {
  private let capture: DiskCapture
  /// Whether chunks may have been captured by an earlier round.
  private let isRepeat: Bool
  private var encoder = ChunkEncoder()
  private var output: RecordBuffer
  /// Nil unless a pass was interrupted.
  private let takeOver: TakeOver?

  init(_ capture: DiskCapture, outputSize: Int, isRepeat: Bool) {
    self.capture = capture
    self.isRepeat = isRepeat
    output = RecordBuffer(capture, capacity: outputSize)
    takeOver = capture.earlier.map { TakeOver(capture, $0) }
  }

  /// Writes out what was taken; needed at the end of a stripe, so that its records lie side by side.
  mutating func flush() throws(StrobeError) { try output.flush() }

  @inline(__always)
  mutating func take(
    _ content: UnsafeRawBufferPointer, _ position: Int, _ parent: ParentGroup
  ) throws(StrobeError) {
    let wasStored = isRepeat && forget(position)
    if unsafe isZero(content) {
      markZero(position, parent)
      return
    }
    let fingerprint = unsafe capture.secret.fingerprint(of: content)
    if case .known(let block) = parent,
      block.fingerprint(position & (ChunkGeometry.chunksPerGroup - 1)) == fingerprint
    {
      return
    }
    capture.changed[position] = true
    capture.stored[position] = true
    if wasStored, try capture.spool.fingerprint(at: position) == fingerprint { return }
    if let takeOver, try unsafe takeOver.keep(content, position, fingerprint) { return }
    try unsafe output.append(content, position, fingerprint, &encoder)
  }

  /// Undoes what an earlier round said of a chunk.
  ///
  /// - Returns: whether its content was stored, so that its entry is in the spool.
  private func forget(_ position: Int) -> Bool {
    let wasStored = capture.stored[position]
    capture.changed[position] = false
    capture.stored[position] = false
    return wasStored
  }

  /// Takes chunks of a word that are known to be zeros.
  func takeZeros(_ bits: UInt64, word: Int, _ parent: ParentGroup) {
    if isRepeat {
      capture.changed[word: word] &= ~bits
      capture.stored[word: word] &= ~bits
    }
    // Terabytes of holes pass here: 64 chunks a step where the parent has none of them.
    if case .zeros = parent { return }
    forEachBit(of: bits) { bit in markZero(word * 64 + bit, parent) }
  }

  /// A chunk of zeros is a change only where the parent has content.
  private func markZero(_ position: Int, _ parent: ParentGroup) {
    switch parent {
    case .zeros: return
    case .known(let block):
      if block.fingerprint(position & (ChunkGeometry.chunksPerGroup - 1)).isZero { return }
    case .unknown: break
    }
    capture.changed[position] = true
  }
}

/// What one worker takes over from interrupted passes.
private final class TakeOver {
  private let capture: DiskCapture
  private let earlier: EarlierDisk
  private let buffers: TakeOverBuffers

  init(_ capture: DiskCapture, _ earlier: EarlierDisk) {
    self.capture = capture
    self.earlier = earlier
    buffers = TakeOverBuffers(chunkSize: capture.geometry.chunkSize)
  }

  /// - Returns: whether the chunk is stored already; its entry is in the spool then.
  @inline(never)
  func keep(
    _ content: UnsafeRawBufferPointer, _ position: Int, _ fingerprint: Fingerprint
  ) throws(StrobeError) -> Bool {
    guard let found = unsafe earlier.find(content, position, fingerprint, scratch: buffers) else {
      return false
    }
    try capture.spool.write(fingerprint, found, position: position)
    capture.count(adopted: Int(found.length))
    return true
  }
}
