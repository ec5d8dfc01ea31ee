import ChangeDetection
import ChunkCodec
import Platform
import SnapshotRepository

/// A worker's output: records one after another, and for each where it will be found.
struct RecordBuffer: ~Copyable {
  private let capture: DiskCapture
  private let memory: AlignedBuffer
  /// Spool entries of the records in `memory`, their offsets counted from its start.
  private var entries: AlignedBuffer
  private var positions: [Int] = []
  private var used = 0

  init(_ capture: DiskCapture, capacity: Int) {
    self.capture = capture
    memory = AlignedBuffer(count: capacity)
    let most = capture.wordsPerStripe * ChunkGeometry.chunksPerWord
    entries = AlignedBuffer(count: most * PassSpool.entrySize)
    positions.reserveCapacity(most)
  }

  /// Adds a chunk, compressed if it shrinks.
  mutating func append(
    _ content: UnsafeRawBufferPointer, _ position: Int, _ fingerprint: Fingerprint,
    _ encoder: inout ChunkEncoder
  ) throws(StrobeError) {
    if used + SegmentFormat.recordHeaderSize + content.count > memory.count
      || (positions.count + 1) * PassSpool.entrySize > entries.count
    {
      try flush()
    }
    let start = unsafe memory.address + used
    let (encoding, count) = unsafe encoder.encode(
      content, to: start + SegmentFormat.recordHeaderSize)
    let record = ChunkRecord(
      encoding: encoding, storedLength: count, contentLength: content.count,
      fingerprint: fingerprint)
    unsafe record.store(at: start)
    let length = SegmentFormat.recordHeaderSize + count
    let entry = unsafe entries.address + positions.count * PassSpool.entrySize
    unsafe fingerprint.store(at: entry)
    unsafe ChunkLocation(segment: 0, length: UInt32(length), offset: UInt64(used))
      .store(at: entry + Fingerprint.byteCount)
    positions.append(position)
    used += length
  }

  /// Writes everything into a segment and keeps the final locations.
  mutating func flush() throws(StrobeError) {
    guard !positions.isEmpty else { return }
    let (segment, base) = try unsafe capture.segments.append(
      UnsafeRawBufferPointer(rebasing: memory.bytes[..<used]))
    capture.count(stored: used)
    capture.progress.add(stored: used)
    var first = 0
    for index in positions.indices {
      let place = unsafe entries.address + index * PassSpool.entrySize + Fingerprint.byteCount
      let relative = unsafe ChunkLocation(at: place)
      unsafe ChunkLocation(
        segment: segment, length: relative.length, offset: relative.offset + UInt64(base)
      ).store(at: place)
      if index + 1 == positions.count || positions[index + 1] != positions[index] + 1 {
        let run = unsafe entries.bytes[
          (first * PassSpool.entrySize)..<((index + 1) * PassSpool.entrySize)]
        try unsafe capture.spool.write(
          UnsafeRawBufferPointer(rebasing: run), position: positions[first])
        first = index + 1
      }
    }
    positions.removeAll(keepingCapacity: true)
    used = 0
  }
}
