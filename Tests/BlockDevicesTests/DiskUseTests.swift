import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Who uses a disk",
  .enabled(
    if: Machine.hasLoopDevices && Machine.has("mkfs.xfs", "mkfs.btrfs", "sfdisk"),
    "needs loop devices, xfsprogs, btrfs-progs and sfdisk"))
struct DiskUseTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  private func use(_ path: String) throws -> DiskUse {
    try DiskUse(of: try #require(try FileFacts(path: path)), path: path)
  }

  /// A new file system that isn't mounted.
  private func made(_ kind: String) throws -> LoopDevice {
    let loop = try LoopDevice(size: 400 << 20, in: folder)
    try Shell.run("mkfs.\(kind)", "-q", kind == "ext4" ? "-F" : "-f", loop.path)
    return loop
  }

  @Test("An unused disk, device or image, is used by nobody")
  func unused() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    try Shell.run("truncate", "-s", "1M", folder.file("image.raw"))
    for path in [loop.path, loop.backing, folder.file("image.raw")] {
      let found = try use(path)
      #expect(found.mounts.isEmpty && found.otherWriter == nil && found.writableMount == nil)
    }
  }

  @Test(
    "A mount is seen from the device and from the file behind it",
    arguments: ["ext4", "xfs", "btrfs"])
  func mounted(kind: String) throws {
    let loop = try LoopDevice(size: 400 << 20, in: folder)
    let system = try MountedFileSystem(kind, on: loop, in: folder)
    for path in [loop.path, loop.backing] {
      let found = try use(path)
      #expect(found.mounts.map(\.mountPoint) == [system.path])
      #expect(found.writableMount?.fileSystem == kind)
      #expect(found.otherWriter == nil)
    }
  }

  @Test("A read-only mount is seen, and nobody writes", arguments: ["ext4", "xfs", "btrfs"])
  func readOnly(kind: String) throws {
    let loop = try made(kind)
    let mount = try MountPoint("-o", "ro", loop.path, in: folder)
    let found = try use(loop.path)
    #expect(found.mounts.map(\.mountPoint) == [mount.path])
    #expect(found.writableMount == nil && found.otherWriter == nil)
  }

  @Test(
    "A read-only view of a writable file system is writable all the same",
    arguments: ["ext4", "btrfs"])
  func readOnlyView(kind: String) throws {
    let loop = try LoopDevice(size: 400 << 20, in: folder)
    let system = try MountedFileSystem(kind, on: loop, in: folder)
    let view = try MountPoint("--bind", "-o", "ro", system.path, in: folder)
    let found = try use(loop.path)
    #expect(Set(found.mounts.map(\.mountPoint)) == [system.path, view.path])
    #expect(!found.mounts.contains { !$0.isWritable })
  }

  @Test("A mount of a partition is a use of the disk, not of the partition beside it")
  func partition() throws {
    let disk = try PartitionedDisk(2, mebibytesEach: 16, in: folder)
    try Shell.run("mkfs.ext4", "-q", "-F", disk.partitions[1])
    let mount = try MountPoint(disk.partitions[1], in: folder)
    for path in [disk.disk.path, disk.disk.backing, disk.partitions[1]] {
      #expect(try use(path).writableMount?.mountPoint == mount.path, "\(path)")
    }
    let beside = try use(disk.partitions[0])
    #expect(beside.mounts.isEmpty && beside.otherWriter == nil)
  }

  @Test("Every device of a Btrfs of several is used, whichever the mount table names")
  func severalDevices() throws {
    let loops = try (0..<2).map { _ in try LoopDevice(size: 200 << 20, in: folder) }
    let paths = loops.map(\.path)
    try Shell.run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", paths[0], paths[1])
    try Shell.run("btrfs", "device", "scan", paths[0], paths[1])
    let mount = try MountPoint("-o", "device=\(paths[1])", paths[0], in: folder)
    for path in paths + loops.map(\.backing) {
      let found = try use(path)
      let writer = found.writableMount?.mountPoint ?? found.otherWriter
      #expect(writer != nil, "\(path)")
      if writer != mount.path { #expect(writer?.contains("Btrfs of several devices") == true) }
    }
  }

  @Test("Swap space is written to")
  func swap() throws {
    let loop = try LoopDevice(size: 16 << 20, in: folder)
    let swap = try SwapSpace(on: loop.path)
    for path in [loop.path, loop.backing] {
      #expect(try use(path).otherWriter == "\(loop.path) is swap space")
    }
    withExtendedLifetime(swap) {}
  }

  @Test("Somebody who holds a device exclusively may write to it")
  func exclusive() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let holder = try FileDescriptor(opening: loop.path, O_RDWR | O_EXCL)
    #expect(try use(loop.path).otherWriter == "the kernel or a program holds it exclusively")
    #expect(
      try use(loop.backing).otherWriter
        == "the kernel or a program holds \(loop.path) exclusively")
    #expect(holder.number >= 0)
  }

  @Test(
    "A read-only mount of one partition hides no writer of another",
    arguments: ["swap", "btrfs", "exclusive"])
  func hidden(kind: String) throws {
    let disk = try PartitionedDisk(2, mebibytesEach: 200, in: folder)
    try Shell.run("mkfs.ext4", "-q", "-F", disk.partitions[0])
    let mount = try MountPoint("-o", "ro", disk.partitions[0], in: folder)
    let other = disk.partitions[1]
    let writer: WriterOfAPartition
    switch kind {
    case "swap": writer = .swap(try SwapSpace(on: other))
    case "btrfs":
      let loop = try LoopDevice(size: 200 << 20, in: folder)
      try Shell.run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", loop.path, other)
      try Shell.run("btrfs", "device", "scan", loop.path, other)
      writer = .mount(try MountPoint("-o", "device=\(other)", loop.path, in: folder), loop)
    default: writer = .holder(try Holder(other))
    }
    let found = try use(disk.disk.path)
    #expect(found.mounts.contains { $0.mountPoint == mount.path })
    #expect(found.writableMount != nil || found.otherWriter?.contains(other) == true)
    withExtendedLifetime(writer) {}
  }

  @Test("A mounted disk that is held by its mounts alone has no other writer")
  func onlyMounts() throws {
    let disk = try PartitionedDisk(2, mebibytesEach: 16, in: folder)
    for partition in disk.partitions { try Shell.run("mkfs.ext4", "-q", "-F", partition) }
    let mounts = try disk.partitions.map { try MountPoint("-o", "ro", $0, in: folder) }
    let found = try use(disk.disk.path)
    #expect(Set(found.mounts.map(\.mountPoint)) == Set(mounts.map(\.path)))
    #expect(found.writableMount == nil && found.otherWriter == nil)
  }
}

/// Keeps whoever writes alive.
private enum WriterOfAPartition {
  case swap(SwapSpace)
  case mount(MountPoint, LoopDevice)
  case holder(Holder)
}

/// An exclusive opening of a device.
private final class Holder: Sendable {
  private let file: FileDescriptor

  init(_ path: String) throws { file = try FileDescriptor(opening: path, O_RDWR | O_EXCL) }
}
