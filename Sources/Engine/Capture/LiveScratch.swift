import BlockDevices
import ChangeDetection
import ChangeTracking
import Glibc
import Platform

/// A raw copy of the chunks of a disk that are written to while it is captured, in a sparse file without a
/// name, brought up to date block by block.
///
/// A busy disk dirties chunks faster than they can be compressed and stored. Copying what was marked,
/// 16 KiB a mark, keeps up with it; storing waits until the thaw.
///
/// Invariant: a chunk in `whole` holds the disk's content but for what was marked since it was copied.
final class LiveScratch {
  /// The chunks that are in the file.
  let whole: ChunkBitmap
  private let file: FileDescriptor
  private let geometry: ChunkGeometry

  /// - Parameter folder: on the repository's file system.
  init(_ geometry: ChunkGeometry, in folder: String) throws(StrobeError) {
    self.geometry = geometry
    whole = ChunkBitmap(chunkCount: geometry.chunkCount)
    file = try FileDescriptor(unnamedIn: folder)
    try file.truncate(to: geometry.diskSize)
  }

  /// What has to be copied for `marks`: the marked blocks of chunks that are here, and all of those that
  /// aren't. Byte ranges, ascending, each at most `limit` bytes; never across two chunks unless adjacent.
  func missing(_ marks: MarkedBlocks, limit: Int) -> [Range<Int>] {
    var pieces: [Range<Int>] = []
    marks.forEachRange { range in
      var start = max(range.lowerBound, 0)
      while start < range.upperBound {
        let position = start / geometry.chunkSize
        let first = geometry.offset(of: position)
        let end = first + geometry.length(of: position)
        let piece =
          whole[position] ? start..<min(range.upperBound, end) : first..<end
        append(piece, limit, to: &pieces)
        start = end
      }
    }
    return pieces
  }

  private func append(_ piece: Range<Int>, _ limit: Int, to pieces: inout [Range<Int>]) {
    var piece = piece
    if let last = pieces.last, piece.lowerBound <= last.upperBound {
      // Two marks in one chunk that isn't here ask for it twice.
      if piece.upperBound <= last.upperBound { return }
      if piece.upperBound - last.lowerBound <= limit {
        pieces[pieces.count - 1] = last.lowerBound..<piece.upperBound
        return
      }
      piece = last.upperBound..<piece.upperBound
    }
    while piece.count > limit {
      pieces.append(piece.lowerBound..<(piece.lowerBound + limit))
      piece = (piece.lowerBound + limit)..<piece.upperBound
    }
    pieces.append(piece)
  }

  /// Keeps bytes of the disk.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    try unsafe file.write(bytes, at: offset)
  }

  /// Says that the chunks of `pieces` are here now.
  func insert(_ pieces: [Range<Int>]) {
    for piece in pieces {
      let end = (piece.upperBound + geometry.chunkSize - 1) / geometry.chunkSize
      whole.insert((piece.lowerBound / geometry.chunkSize)..<end)
    }
  }

  /// The file in place of the disk, for the chunks in `whole`.
  func source(inPlaceOf disk: DiskSource) throws(StrobeError) -> DiskSource {
    let number = try systemCall("dup", file.path) { fcntl(file.number, F_DUPFD_CLOEXEC, 3) }
    return try DiskSource(
      reading: FileDescriptor(owning: number, path: file.path), inPlaceOf: disk)
  }

  /// Asks whether what was read from the file was what had been written to it.
  func check() throws(StrobeError) { try file.checkWriteback() }
}
