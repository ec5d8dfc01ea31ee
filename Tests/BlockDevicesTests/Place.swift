import BlockDevices
import Platform
import TestSupport
import Testing

/// Where a disk may lie: what differs in alignment, page cache and direct I/O.
enum Place: String, CaseIterable, CustomTestStringConvertible {
  case loop512, loop4096, ext4, xfs, xfs4096, btrfs, tmpfs

  static let files: [Place] = [.ext4, .xfs, .xfs4096, .btrfs, .tmpfs]

  var isDevice: Bool { self == .loop512 || self == .loop4096 }
  var testDescription: String { rawValue }

  /// Bytes of a disk that is no whole number of pages where the place allows it.
  var oddSize: Int { (3 << 20) + (self == .loop4096 ? 4096 : 3584) }
}

/// A place for one disk, alive as long as it is held.
final class DiskPlace: Sendable {
  /// The device, or the image file.
  let path: String
  /// Where more files can be made beside an image.
  let directory: String
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let device: LoopDevice?
  private let mount: MountedFileSystem?

  /// - Parameter size: bytes of the disk, all zeros; nil: no image is made.
  init(_ place: Place, size: Int?) throws {
    if place.isDevice {
      let loop = try LoopDevice(
        size: size ?? 1 << 20, sectorSize: place == .loop4096 ? 4096 : 512, in: folder)
      (path, directory, device, mount) = (loop.path, folder.path, loop, nil)
      return
    }
    if place == .tmpfs {
      (directory, device, mount) = (folder.path, nil, nil)
    } else {
      let loop = try LoopDevice(
        size: 400 << 20, sectorSize: place == .xfs4096 ? 4096 : 512, in: folder)
      let kind = place == .xfs4096 ? "xfs" : place.rawValue
      let system = try MountedFileSystem(kind, on: loop, in: folder)
      (directory, device, mount) = (system.path, loop, system)
    }
    path = directory + "/image.raw"
    if let size { try Shell.run("truncate", "-s", "\(size)", path) }
  }
}

/// Everything of a disk, read as a pass reads it.
func readAll(
  _ source: DiskSource, depth: Int = 3, requestSize: Int = 256 << 10
) throws(StrobeError) -> [UInt8] {
  var content: [UInt8] = []
  try read(source, depth: depth, requestSize: requestSize) { content += $0 }
  return content
}

/// Reads a disk in order and hands each piece to `body`.
func read(
  _ source: DiskSource, depth: Int, requestSize: Int, _ body: ([UInt8]) -> Void
) throws(StrobeError) {
  let stop = CancellationFlag()
  var pipeline = try ReadPipeline(
    source: source, depth: depth, requestSize: requestSize, stop: stop)
  var next = 0
  while true {
    while pipeline.hasRoom && next < source.size {
      let length = min(requestSize, source.size - next)
      try pipeline.start(offset: next, length: length)
      next += length
    }
    if pipeline.isEmpty { return }
    let bytes = try unsafe pipeline.next()
    body(unsafe Array(bytes))
    pipeline.release()
  }
}

/// Writes pieces of `content` at the same offset of the target, in the order given.
func write(
  _ content: [UInt8], _ pieces: [Range<Int>], to target: DiskTarget, depth: Int = 3,
  requestSize: Int = 64 << 10
) throws(StrobeError) {
  var pipeline = try WritePipeline(
    target: target, depth: depth, requestSize: requestSize, stop: CancellationFlag())
  for piece in pieces {
    unsafe pipeline.buffer.copyBytes(from: content[piece])
    try pipeline.write(count: piece.count, at: piece.lowerBound)
  }
  try pipeline.drain()
}

/// A disk of `size` bytes in pieces of at most `length`.
func pieces(_ size: Int, _ length: Int) -> [Range<Int>] {
  stride(from: 0, to: size, by: length).map { $0..<min($0 + length, size) }
}
