import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Opening a source")
struct DiskSourceTests {
  private let folder = TemporaryDirectory()

  private func refusal(_ path: String) -> StrobeError? {
    #expect(throws: StrobeError.self) { try DiskSource(path: path) }
  }

  @Test("A path that leads nowhere is not found")
  func missing() {
    let error = refusal(folder.file("missing"))
    #expect(error?.reason == .notFound)
    #expect(error?.message == "source \(folder.file("missing")) does not exist")
  }

  @Test(
    "A directory, a character device and a pipe are no disks",
    arguments: ["directory", "null", "pipe"])
  func otherKinds(kind: String) throws {
    if kind == "pipe" { try Shell.run("mkfifo", folder.file("pipe")) }
    let paths = ["directory": folder.path, "null": "/dev/null", "pipe": folder.file("pipe")]
    let error = refusal(try #require(paths[kind]))
    #expect(error?.reason == .usage)
    #expect(error?.message.hasSuffix("is neither a block device nor a regular file") == true)
  }

  @Test(
    "An image that is no whole number of sectors is refused, with the way to pad it",
    arguments: [1, 511, 513, 4097])
  func oddSize(size: Int) throws {
    let path = folder.file("image.raw")
    try Shell.run("truncate", "-s", "\(size)", path)
    let error = try #require(refusal(path))
    #expect(error.reason == .usage)
    #expect(error.message.contains("has \(size) bytes"))
    // The advice is a command that works.
    let command = try #require(error.advice?.split(separator: ": ").last)
    try Shell.run("sh", "-c", String(command))
    #expect(try DiskSource(path: path).size == (size + 511) / 512 * 512)
  }

  @Test("An image file has sectors of 512 bytes, and may be empty", arguments: [0, 512, 1 << 20])
  func image(size: Int) throws {
    let path = folder.file("image.raw")
    try Shell.run("truncate", "-s", "\(size)", path)
    let source = try DiskSource(path: path)
    #expect(source.size == size)
    #expect(source.kind == .imageFile)
    #expect(source.logicalSectorSize == 512)
    #expect(source.path == path)
  }

  @Test(
    "A device tells its size and sector",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"),
    arguments: [512, 4096], [1 << 20, (1 << 20) + 4096])
  func device(sectorSize: Int, size: Int) throws {
    let loop = try LoopDevice(size: size, sectorSize: sectorSize, in: folder)
    let source = try DiskSource(path: loop.path)
    #expect(source.size == size)
    #expect(source.kind == .blockDevice)
    #expect(source.logicalSectorSize == sectorSize)
  }

  @Test("A symbolic link stands for what it leads to")
  func link() throws {
    try Shell.run("truncate", "-s", "4096", folder.file("image.raw"))
    try Shell.run("ln", "-s", "image.raw", folder.file("link"))
    let (image, link) = (
      try DiskSource(path: folder.file("image.raw")), try DiskSource(path: folder.file("link"))
    )
    #expect(link.isSame(as: image) && link.identity == image.identity)
    #expect(link.path == folder.file("link"))
  }

  @Test(
    "Two names of a device are the same source; a device and its file are not",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func sameSource() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let other = try LoopDevice(size: 1 << 20, in: folder)
    try Shell.run("ln", "-s", loop.path, folder.file("link"))
    let source = try DiskSource(path: loop.path)
    #expect(source.isSame(as: try DiskSource(path: folder.file("link"))))
    #expect(!source.isSame(as: try DiskSource(path: other.path)))
    #expect(!source.isSame(as: try DiskSource(path: loop.backing)))
  }

  @Test(
    "What was written through the page cache is read directly",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"), arguments: Place.allCases)
  func dirtyPages(place: Place) throws {
    let disk = try DiskPlace(place, size: 1 << 20)
    let content = [UInt8](repeating: 0x42, count: 4096)
    let file = try FileDescriptor(opening: disk.path, O_RDWR)
    try unsafe content.withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 8192)
    }
    let found = try readAll(try DiskSource(path: disk.path))
    #expect(Array(found[8192..<12288]) == content)
  }
}

@Suite("Identity of a disk", .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct DiskIdentityTests {
  private let folder = TemporaryDirectory()

  private func identity(_ path: String) throws -> String {
    try DiskSource(path: path).identity.text
  }

  private func image(_ name: String) throws -> String {
    try Shell.run("truncate", "-s", "1M", folder.file(name))
    return folder.file(name)
  }

  @Test("A loop device keeps its identity under another number")
  func otherNumber() throws {
    let file = try image("one")
    let first = try AttachedLoop(file)
    // Both at once: surely two numbers.
    let second = try AttachedLoop(file)
    #expect(first.path != second.path)
    #expect(try identity(first.path) == identity(second.path))
    #expect(try identity(first.path).hasPrefix("loop:inode:"))
  }

  @Test("A loop device keeps its identity when it is detached and attached again")
  func attachedAgain() throws {
    let file = try image("one")
    func attached() throws -> String {
      let loop = try AttachedLoop(file)
      return try withExtendedLifetime(loop) { try identity(loop.path) }
    }
    #expect(try attached() == attached())
  }

  @Test("Another file and another window on the same file are other disks")
  func others() throws {
    let (one, two) = (try image("one"), try image("two"))
    let loops = [
      try AttachedLoop(one), try AttachedLoop(two), try AttachedLoop(one, offset: 4096),
      try AttachedLoop(one, offset: 8192),
    ]
    let identities =
      try loops.map { try identity($0.path) } + [try identity(one), try identity(two)]
    #expect(Set(identities).count == identities.count)
  }

  @Test(
    "A file keeps its identity when it is written to, grown or renamed, and a new one has another")
  func file() throws {
    let path = try image("one")
    let before = try identity(path)
    try writeBytes([1, 2, 3], to: path)
    try Shell.run("truncate", "-s", "2M", path)
    try Shell.run("mv", path, folder.file("moved"))
    #expect(try identity(folder.file("moved")) == before)
    try Shell.run("cp", folder.file("moved"), path)
    #expect(try identity(path) != before)
    try Shell.run("mv", path, folder.file("moved"))
    #expect(try identity(folder.file("moved")) != before)
  }

  @Test(
    "A partition is known by its disk and number",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func partitions() throws {
    let disk = try PartitionedDisk(2, mebibytesEach: 1, in: folder)
    let whole = try identity(disk.disk.path)
    #expect(try identity(disk.partitions[0]) == whole + ":partition:1")
    #expect(try identity(disk.partitions[1]) == whole + ":partition:2")
  }
}
