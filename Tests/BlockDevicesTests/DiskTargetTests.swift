import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Devices as targets", .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct DeviceTargetTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  @Test("A mounted device is refused, and taken when it is mounted no more")
  func mounted() throws {
    let loop = try LoopDevice(size: 16 << 20, in: folder)
    do {
      let system = try MountedFileSystem("ext4", on: loop, in: folder)
      let error = #expect(throws: StrobeError.self) { try DiskTarget(device: loop.path) }
      #expect(error?.reason == .busy)
      #expect(error?.message.contains("target \(loop.path) is in use") == true)
      withExtendedLifetime(system) {}
    }
    #expect(try DiskTarget(device: loop.path).size == 16 << 20)
  }

  @Test("Two can't have one device at once")
  func twice() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let first = try DiskTarget(device: loop.path)
    let error = #expect(throws: StrobeError.self) { try DiskTarget(device: loop.path) }
    #expect(error?.reason == .busy)
    withExtendedLifetime(first) {}
  }

  @Test("A device that isn't there is named")
  func missing() {
    let error = #expect(throws: StrobeError.self) { try DiskTarget(device: folder.file("none")) }
    #expect(error?.errno == ENOENT)
    #expect(error?.message.contains(folder.file("none")) == true)
  }

  /// Ranges at every kind of boundary: pages, sectors, inside one page, across two, none, all.
  private static let ranges = [
    0..<4096, 4096..<12288, 512..<1024, 3584..<4608, 100..<200, 4095..<4097, 0..<512, 512..<8192,
    4096..<4608, 1_044_480..<1_048_576, 1_048_064..<1_048_576, 5..<5, 777..<999_999, 0..<1_048_576,
    4096..<8191, 4097..<8192, 8191..<8193, 0..<0,
  ]

  @Test("Zeroing gives zeros there and leaves the rest", arguments: [512, 4096], ranges)
  func zeroing(sectorSize: Int, range: Range<Int>) throws {
    let loop = try LoopDevice(size: 1 << 20, sectorSize: sectorSize, in: folder)
    var generator = SeededGenerator(seed: 41)
    var expected = generator.bytes(1 << 20)
    try writeBytes(expected, to: loop.path)
    let target = try DiskTarget(device: loop.path)
    try target.zero(range)
    try target.finish()
    for index in range { expected[index] = 0 }
    let directly = try readAll(try DiskSource(path: loop.path)) == expected
    let throughTheCache = try readBytes(loop.path, count: 1 << 20) == expected
    #expect(directly && throughTheCache)
  }

  @Test(
    "A device that can't punch holes gets its zeros another way",
    .enabled(if: Machine.has("mkfs.ext4"), "needs e2fsprogs"))
  func withoutPunching() throws {
    // A loop device on a device of 4,096 bytes a sector: it discards nothing.
    let inner = try LoopDevice(size: 1 << 20, sectorSize: 4096, in: folder)
    let loop = try AttachedLoop(inner.path, sectorSize: 4096)
    try writeBytes([UInt8](repeating: 9, count: 1 << 20), to: loop.path)
    let target = try DiskTarget(device: loop.path)
    try target.zero(4096..<(512 << 10))
    try target.zero((600 << 10)..<(700 << 10) + 512)
    try target.finish()
    let found = try readAll(try DiskSource(path: loop.path))
    let zeros = found.indices.filter { found[$0] == 0 }
    #expect(zeros == Array(4096..<(512 << 10)) + Array((600 << 10)..<(700 << 10) + 512))
  }

  @Test("Zeroing and writing in turn leave what was done last", arguments: [512, 4096])
  func mixed(sectorSize: Int) throws {
    let size = 1 << 20
    let loop = try LoopDevice(size: size, sectorSize: sectorSize, in: folder)
    var generator = SeededGenerator(seed: 42)
    var expected = generator.bytes(size)
    try writeBytes(expected, to: loop.path)
    let target = try DiskTarget(device: loop.path)
    for _ in 0..<100 {
      let start = Int.random(in: 0..<(size / 4096), using: &generator) * 4096
      let end = min(size, start + Int.random(in: 1...64, using: &generator) * 512)
      if Bool.random(using: &generator) {
        try target.zero(start..<end)
        for index in start..<end { expected[index] = 0 }
      } else {
        let bytes = generator.bytes(end - start)
        expected.replaceSubrange(start..<end, with: bytes)
        try write(expected, [start..<end], to: target)
      }
    }
    try target.finish()
    let same = try readAll(try DiskSource(path: loop.path)) == expected
    #expect(same)
  }

  @Test("A device keeps what was written to it also when the restore is abandoned")
  func abandoned() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let content = [UInt8](repeating: 3, count: 4096)
    let target = try DiskTarget(device: loop.path)
    try write(content, [0..<4096], to: target)
    target.abandon()
    #expect(try readBytes(loop.path, count: 4096) == content)
  }
}

@Suite("Files as targets")
struct FileTargetTests {
  private let folder = TemporaryDirectory()
  private var path: String { folder.file("image.raw") }
  private let content = [UInt8](repeating: 5, count: 8192)

  @Test("A new file appears when it is complete, not before, and has no other name then")
  func appears() throws {
    let target = try DiskTarget(newFile: path, size: 8704, replaces: false)
    try write(content, [0..<8192], to: target)
    #expect(try FileFacts(path: path) == nil)
    try target.finish()
    #expect(try readFile(path) == content + [UInt8](repeating: 0, count: 512))
    #expect(try namesInDirectory(folder.path) == ["image.raw"])
  }

  @Test("A file without content is sparse")
  func sparse() throws {
    let target = try DiskTarget(newFile: path, size: 1 << 40, replaces: false)
    try target.zero(0..<(1 << 40))
    try target.finish()
    #expect(try DiskSource(path: path).size == 1 << 40)
    #expect(try Shell.run("stat", "-c", "%b", path) == "0\n")
  }

  @Test("Abandoning leaves nothing behind", arguments: [true, false])
  func abandoned(replaces: Bool) throws {
    let target = try DiskTarget(newFile: path, size: 8192, replaces: replaces)
    try write(content, [0..<8192], to: target)
    target.abandon()
    #expect(try namesInDirectory(folder.path).isEmpty)
  }

  @Test(
    "A file that is replaced stays as it was until the new one is complete",
    arguments: [true, false])
  func replaced(completes: Bool) throws {
    try writeBytes([1, 2, 3], to: path)
    let target = try DiskTarget(newFile: path, size: 8192, replaces: true)
    try write(content, [0..<8192], to: target)
    #expect(try readFile(path) == [1, 2, 3])
    if completes { try target.finish() } else { target.abandon() }
    #expect(try readFile(path) == (completes ? content : [1, 2, 3]))
    #expect(try namesInDirectory(folder.path) == ["image.raw"])
  }

  @Test("A file that appeared meanwhile is not overwritten")
  func appeared() throws {
    let target = try DiskTarget(newFile: path, size: 8192, replaces: false)
    try writeBytes([1, 2, 3], to: path)
    let error = #expect(throws: StrobeError.self) { try target.finish() }
    #expect(error?.reason == .exists)
    #expect(error?.message.contains(path) == true)
    target.abandon()
    #expect(try readFile(path) == [1, 2, 3])
    #expect(try namesInDirectory(folder.path) == ["image.raw"])
  }

  @Test(
    "A full file system is told by the target's name, and abandoning frees it",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"), arguments: ["tmpfs", "ext4"])
  func full(kind: String) throws {
    let small = try SmallFileSystem(kind)
    let path = small.path + "/image.raw"
    var generator = SeededGenerator(seed: 43)
    let content = generator.bytes(24 << 20)
    let target = try DiskTarget(newFile: path, size: content.count, replaces: false)
    let error = #expect(throws: StrobeError.self) {
      try write(content, pieces(content.count, 1 << 20), to: target, requestSize: 1 << 20)
      try target.finish()
    }
    #expect(error?.errno == ENOSPC)
    #expect(error?.message == "target \(path): No space left on device")
    #expect(error?.advice?.contains("free space") == true)
    target.abandon()
    #expect(try namesInDirectory(small.path).filter { $0 != "lost+found" }.isEmpty)
  }

  @Test("A directory that isn't there is an error")
  func missingDirectory() {
    let error = #expect(throws: StrobeError.self) {
      try DiskTarget(newFile: folder.file("missing/image.raw"), size: 4096, replaces: false)
    }
    #expect(error?.errno == ENOENT)
  }
}

/// A file system with room for a few MiB.
private final class SmallFileSystem: Sendable {
  let path: String
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let mounts: (MountPoint?, MountedFileSystem?)

  init(_ kind: String) throws {
    if kind == "tmpfs" {
      let mount = try MountPoint("-t", "tmpfs", "-o", "size=4m", "none", in: folder)
      (path, mounts) = (mount.path, (mount, nil))
    } else {
      let system = try MountedFileSystem(
        kind, on: LoopDevice(size: 16 << 20, in: folder), in: folder)
      (path, mounts) = (system.path, (nil, system))
    }
  }
}
