import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

/// A Btrfs with an image file of which one block has rotted underneath: reading it gives EIO.
private final class RottenImage: Sendable {
  static let size = 2 << 20
  /// The block that can't be read.
  static let badByte = 1_187_840

  let path: String
  let content: [UInt8]
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let device: LoopDevice
  private let system: MountedFileSystem

  init() throws {
    device = try LoopDevice(size: 256 << 20, in: folder)
    system = try MountedFileSystem("btrfs", on: device, in: folder)
    path = system.path + "/image.raw"
    var generator = SeededGenerator(seed: 21)
    var bytes = generator.bytes(Self.size)
    let pattern = "strobe-rots-here-" + hexadecimal(generator.bytes(8))
    bytes.replaceSubrange(Self.badByte..<(Self.badByte + pattern.utf8.count), with: pattern.utf8)
    content = bytes
    try writeBytes(bytes, to: path)
    try Shell.run("sync", "--file-system", path)
    // The block lies where the pattern is found on the device below.
    let found = try Shell.run("grep", "-obUaF", "--max-count=1", pattern, device.backing)
    guard let offset = found.split(separator: ":").first.flatMap({ Int($0) }) else {
      throw Shell.Failure(description: "the block was not found")
    }
    try writeBytes(Array("rotten".utf8), to: device.backing, at: offset + 100)
    // Forget what the page cache knows of the image.
    try Shell.run(
      "dd", "of=\(path)", "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none")
    let number = try FileDescriptor(opening: path, O_RDONLY)
    posix_fadvise(number.number, 0, 0, POSIX_FADV_DONTNEED)
  }
}

@Suite(
  "Disks that can't be read",
  .enabled(if: Machine.hasLoopDevices && Machine.has("mkfs.btrfs"), "needs loop devices and Btrfs"))
struct ReadErrorTests {
  /// Reads all and returns what came before the error, and the error.
  private func failure(
    _ source: DiskSource, depth: Int, requestSize: Int
  ) -> (before: [UInt8], error: StrobeError?) {
    var before: [UInt8] = []
    do throws(StrobeError) {
      try read(source, depth: depth, requestSize: requestSize) { before += $0 }
      return (before, nil)
    } catch {
      return (before, error)
    }
  }

  @Test(
    "A block that can't be read is named by its byte, and what lies before it arrives",
    arguments: [false, true], [4096, 64 << 10, 1 << 20])
  func badBlock(throughLoop: Bool, requestSize: Int) throws {
    let image = try RottenImage()
    let loop = throughLoop ? try AttachedLoop(image.path) : nil
    let path = loop?.path ?? image.path
    let source = try DiskSource(path: path)
    let (before, failure) = failure(source, depth: 4, requestSize: requestSize)
    let error = try #require(failure)
    #expect(error.errno == EIO)
    #expect(
      error.message == "\(path): read error at byte \(RottenImage.badByte): Input/output error")
    #expect(error.advice?.contains("dmesg") == true)
    #expect(before.count == RottenImage.badByte / requestSize * requestSize)
    let same = before == Array(image.content.prefix(before.count))
    #expect(same)
  }

  @Test("The blocks beside a bad one are still readable")
  func beside() throws {
    let image = try RottenImage()
    let source = try DiskSource(path: image.path)
    var pipeline = try ReadPipeline(
      source: source, depth: 2, requestSize: 4096, stop: CancellationFlag())
    for offset in [RottenImage.badByte - 4096, RottenImage.badByte + 4096] {
      try pipeline.start(offset: offset, length: 4096)
      let found = unsafe Array(try pipeline.next())
      #expect(found == Array(image.content[offset..<(offset + 4096)]))
      pipeline.release()
    }
  }

  @Test(
    "A file that is truncated while it is read is told by where it ends now",
    arguments: Place.files, [1 << 20, (1 << 20) + 512, (1 << 20) + 100, 0])
  func truncated(place: Place, end: Int) throws {
    let disk = try DiskPlace(place, size: nil)
    var generator = SeededGenerator(seed: 22)
    let content = generator.bytes(place.oddSize)
    try writeBytes(content, to: disk.path)
    let source = try DiskSource(path: disk.path)
    try FileDescriptor(opening: disk.path, O_RDWR).truncate(to: end)
    let (before, failure) = failure(source, depth: 3, requestSize: 64 << 10)
    let error = try #require(failure)
    #expect(error.errno == EIO)
    #expect(
      error.message
        == "\(disk.path) ends at byte \(end) although it has \(content.count) bytes")
    #expect(before.count == end / 65536 * 65536)
  }

  @Test("A read that lies wholly behind the new end names that end, not itself")
  func behindTheEnd() throws {
    let disk = try DiskPlace(.tmpfs, size: 1 << 20)
    let source = try DiskSource(path: disk.path)
    try FileDescriptor(opening: disk.path, O_RDWR).truncate(to: 1024)
    var pipeline = try ReadPipeline(
      source: source, depth: 1, requestSize: 65536, stop: CancellationFlag())
    try pipeline.start(offset: 512 << 10, length: 65536)
    do throws(StrobeError) {
      _ = try unsafe pipeline.next()
      Issue.record("bytes came")
    } catch {
      #expect(error.message.contains("ends at byte 1024 "), "\(error.message)")
    }
  }

  @Test("A loop device whose file was truncated is a disk with a read error")
  func truncatedBelow() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let loop = try LoopDevice(size: 2 << 20, in: folder)
    let source = try DiskSource(path: loop.path)
    try FileDescriptor(opening: loop.backing, O_RDWR).truncate(to: 1 << 20)
    let (before, failure) = failure(source, depth: 2, requestSize: 256 << 10)
    let error = try #require(failure)
    #expect(error.message == "\(loop.path): read error at byte 1048576: Input/output error")
    #expect(before.count == 1 << 20)
  }
}
