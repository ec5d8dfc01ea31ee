import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Holes", .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct HoleMapTests {
  private static let size = 8 << 20
  /// Where data lies in an otherwise sparse file.
  private static let data = [0..<4096, (1 << 20)..<(1 << 20) + 65536, (5 << 20) + 4096..<(6 << 20)]
  /// A file system may reserve more than is written.
  private static let slack = 1 << 20

  private func holes(_ source: DiskSource) -> [Range<Int>] {
    var holes: [Range<Int>] = []
    source.forEachHole { holes.append($0) }
    return holes
  }

  private func sparse(at path: String) throws -> [UInt8] {
    var generator = SeededGenerator(seed: 31)
    try Shell.run("truncate", "-s", "\(Self.size)", path)
    for range in Self.data {
      try writeBytes(generator.bytes(range.count), to: path, at: range.lowerBound)
    }
    return try readFile(path)
  }

  /// Holes are in order, inside the disk, and hold nothing but zeros.
  private func expectSound(_ holes: [Range<Int>], _ content: [UInt8]) {
    var end = 0
    for hole in holes {
      #expect(hole.lowerBound >= end && hole.upperBound <= content.count && !hole.isEmpty)
      let zeros = content[hole].allSatisfy { $0 == 0 }
      #expect(zeros, "\(hole)")
      end = hole.upperBound
    }
  }

  @Test(
    "The holes of a sparse image are found, and none where there is data", arguments: Place.files)
  func image(place: Place) throws {
    let disk = try DiskPlace(place, size: nil)
    let content = try sparse(at: disk.path)
    let found = holes(try DiskSource(path: disk.path))
    expectSound(found, content)
    let written = Self.data.reduce(0) { $0 + $1.count }
    #expect(found.reduce(0) { $0 + $1.count } >= Self.size - written - Self.slack)
  }

  @Test("An image of nothing but a hole is one hole, a full one has none", arguments: Place.files)
  func extremes(place: Place) throws {
    let disk = try DiskPlace(place, size: 1 << 20)
    #expect(holes(try DiskSource(path: disk.path)) == [0..<(1 << 20)])
    try writeBytes([UInt8](repeating: 1, count: 1 << 20), to: disk.path)
    #expect(holes(try DiskSource(path: disk.path)).isEmpty)
  }

  @Test("Data that is still in the page cache is no hole", arguments: Place.files)
  func unwritten(place: Place) throws {
    let disk = try DiskPlace(place, size: 4 << 20)
    let source = try DiskSource(path: disk.path)
    let file = try FileDescriptor(opening: disk.path, O_RDWR)
    try unsafe [UInt8](repeating: 7, count: 4096).withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 2 << 20)
    }
    let written = (2 << 20)..<((2 << 20) + 4096)
    #expect(!holes(source).contains { $0.overlaps(written) })
  }

  @Test(
    "A loop device has the holes of its window on the file",
    arguments: [(0, 0), (1 << 20, 0), (0, 2 << 20), (1 << 20, 3 << 20), (512 * 9, (6 << 20) + 512)])
  func loop(offset: Int, sizeLimit: Int) throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let content = try sparse(at: folder.file("image.raw"))
    let loop = try AttachedLoop(folder.file("image.raw"), offset: offset, sizeLimit: sizeLimit)
    let source = try DiskSource(path: loop.path)
    let size = sizeLimit == 0 ? Self.size - offset : sizeLimit
    #expect(source.size == size)
    let window = Array(content[offset..<(offset + size)])
    let found = holes(source)
    expectSound(found, window)
    let zeros = window.reduce(0) { $0 + ($1 == 0 ? 1 : 0) }
    #expect(found.reduce(0) { $0 + $1.count } >= zeros - Self.slack)
  }

  @Test(
    "A loop device on a device, and one whose file was deleted, claim no holes",
    arguments: [true, false])
  func unknown(onDevice: Bool) throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let inner = try LoopDevice(size: 1 << 20, in: folder)
    let outer = onDevice ? try AttachedLoop(inner.path) : nil
    if !onDevice { try removeFile(inner.backing) }
    #expect(holes(try DiskSource(path: outer?.path ?? inner.path)).isEmpty)
  }

  @Test(
    "A partition of a loop device claims no holes that are its disk's",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func partition() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let disk = try PartitionedDisk(2, mebibytesEach: 2, in: folder)
    let content = [UInt8](repeating: 1, count: 2 << 20)
    try writeBytes(content, to: disk.partitions[1])
    expectSound(holes(try DiskSource(path: disk.partitions[1])), content)
  }

  @Test("A file that took the name of a loop device's file is not asked for holes")
  func replaced() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let content = try sparse(at: folder.file("image.raw"))
    let loop = try AttachedLoop(folder.file("image.raw"))
    try Shell.run("mv", folder.file("image.raw"), folder.file("moved.raw"))
    try Shell.run("truncate", "-s", "\(Self.size)", folder.file("image.raw"))
    let source = try DiskSource(path: loop.path)
    expectSound(holes(source), content)
  }
}
