import BlockDevices
import ChangeDetection
import Platform

/// Looks for chunks that read as zeros, have content in the parent, and of which no write was recorded. They don't have to be
/// read for that: whoever serves the disk says what are zeros.
///
/// QEMU cuts a bitmap off when its image is shrunk; when that grows again, nothing is marked there.
struct HoleCheck {
  private let capture: DiskCapture
  private let source: DiskSource
  private let stop: CancellationFlag

  init(_ capture: DiskCapture, _ source: DiskSource, stop: CancellationFlag) {
    self.capture = capture
    self.source = source
    self.stop = stop
  }

  /// - Parameter marked: the chunks that were recorded as written; those that are zeros in part only, and have content in
  ///   the parent, are added, so that they are read.
  /// - Returns: the first byte of a chunk that contradicts the record, or nil.
  func contradiction(of marked: ChunkBitmap) -> Int? {
    var found: Int?
    source.forEachHole(stop: stop) { hole in
      guard found == nil, !hole.isEmpty else { return }
      found = contradiction(in: hole, marked)
    }
    return found
  }

  private func contradiction(in hole: Range<Int>, _ marked: ChunkBitmap) -> Int? {
    let geometry = capture.geometry
    let end = min((hole.upperBound - 1) / geometry.chunkSize + 1, geometry.chunkCount)
    var position = hole.lowerBound / geometry.chunkSize
    while position < end {
      let group = position / ChunkGeometry.chunksPerGroup
      let endOfGroup = min((group + 1) * ChunkGeometry.chunksPerGroup, end)
      // Terabytes of holes pass here. A group whose record is damaged proves nothing.
      guard case .known(let block) = capture.parentGroup(group) else {
        position = endOfGroup
        continue
      }
      for chunk in position..<endOfGroup where !marked[chunk] {
        if block.fingerprint(chunk & (ChunkGeometry.chunksPerGroup - 1)).isZero { continue }
        let start = geometry.offset(of: chunk)
        let isWhole =
          hole.lowerBound <= start && start + geometry.length(of: chunk) <= hole.upperBound
        if isWhole { return start }
        marked.insert(chunk..<(chunk + 1))
      }
      position = endOfGroup
    }
    return nil
  }
}
