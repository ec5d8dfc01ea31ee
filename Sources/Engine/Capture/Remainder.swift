import Platform

/// What is read of all disks while everything stands still, to be kept elsewhere afterwards: a window must
/// not wait for the repository.
///
/// The memory is there, and touched, before the window opens: in it nothing may wait for memory that the
/// kernel would have to free by writing to a frozen file system.
final class Remainder {
  /// Bytes of content that are held at most.
  static let limit = 64 << 20

  private struct Piece {
    let disk: Int
    let offset: Int
    let place: Int
    let length: Int
  }

  private let memory: AlignedBuffer
  private var pieces: [Piece] = []
  private var used = 0

  /// - Parameter bytes: how much may come, at most ``limit``.
  init(bytes: Int) {
    let size = max(min(bytes, Self.limit), 4096)
    memory = AlignedBuffer(count: size)
    unsafe memory.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    pieces.reserveCapacity(size / 4096)
  }

  /// Forgets what was read: the cut is made again.
  func removeAll() {
    pieces.removeAll(keepingCapacity: true)
    used = 0
  }

  /// Bytes of content that there is room for.
  var capacity: Int { memory.count - used }

  /// Keeps bytes of a disk; there must be room.
  func append(_ bytes: UnsafeRawBufferPointer, disk: Int, at offset: Int) {
    precondition(bytes.count <= capacity)
    unsafe (memory.address + used).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    pieces.append(Piece(disk: disk, offset: offset, place: used, length: bytes.count))
    used += bytes.count
  }

  /// Hands over what was kept of a disk.
  func forEach(
    disk: Int, _ body: (UnsafeRawBufferPointer, _ offset: Int) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    for piece in pieces where piece.disk == disk {
      let bytes = unsafe memory.bytes[piece.place..<(piece.place + piece.length)]
      try unsafe body(UnsafeRawBufferPointer(rebasing: bytes), piece.offset)
    }
  }
}
