import Glibc
import Platform
import TestSupport

/// A loop device with two partitions of its own.
final class PartitionedLoop: Sendable {
  let disk: LoopDevice
  let partitions: [String]
  /// Bytes of each partition, and where they begin on the disk.
  let sizes: [Int]
  let starts: [Int]

  init(mebibytes: Int, in folder: TemporaryDirectory) throws {
    disk = try LoopDevice(size: (2 * mebibytes + 4) << 20, partitions: true, in: folder)
    let script = folder.file("sfdisk-" + hexadecimal(randomBytes(4)))
    // The first begins at no multiple of a block, so that windows and disk divide differently.
    let lines = "start=2056,size=\(mebibytes)MiB\nsize=\(mebibytes)MiB\n"
    try writeBytes(Array("label: gpt\n\(lines)".utf8), to: script)
    try Shell.run("sh", "-c", "sfdisk --quiet \(disk.path) < \(script)")
    try Shell.run("partx", "--update", disk.path)
    partitions = (1...2).map { [disk] in "\(disk.path)p\($0)" }
    let names = partitions.map(lastComponent)
    sizes = names.map { Int(readText("/sys/class/block/\($0)/size")!)! << 9 }
    starts = names.map { Int(readText("/sys/class/block/\($0)/start")!)! << 9 }
  }
}

/// A compressed disk in memory, which takes bios without making requests; gone when let go.
final class ZRAMDisk: Sendable {
  let path: String
  private let index: String

  static let isAvailable =
    unsafe Machine.isRoot && access("/sys/class/zram-control/hot_add", R_OK) == 0

  init(size: Int) throws {
    index = try Shell.run("cat", "/sys/class/zram-control/hot_add").filter(\.isNumber)
    path = "/dev/zram\(index)"
    try Shell.run("sh", "-c", "echo \(size) > /sys/block/zram\(index)/disksize")
  }

  deinit {
    // Whoever looks at new disks may have it open for a moment.
    _ = try? Shell.run(
      "sh", "-c",
      "for i in $(seq 100); do echo \(index) > /sys/class/zram-control/hot_remove && exit; sleep 0.05; done"
    )
  }
}

/// All of a device as it is on the medium, past the page cache.
func contents(_ path: String, size: Int) throws(StrobeError) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: size)
  try readDirect(path, [0..<size], into: &bytes)
  return bytes
}

/// Reads ranges of a device into the same places of `copy`, with O_DIRECT.
func readDirect(
  _ path: String, _ ranges: [Range<Int>], into copy: inout [UInt8]
) throws(StrobeError) {
  let file = try FileDescriptor(opening: path, O_RDONLY | directFlag)
  let buffer = AlignedBuffer(count: 1 << 20)
  for range in ranges {
    var offset = range.lowerBound
    while offset < range.upperBound {
      let count = min(buffer.count, range.upperBound - offset)
      let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<count])
      let got = try unsafe file.read(at: offset, into: piece)
      precondition(got == count)
      try unsafe copy.withMutableBytes { (memory) throws(StrobeError) in
        unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + count])
          .copyMemory(from: UnsafeRawBufferPointer(piece))
      }
      offset += count
    }
  }
}

/// O_DIRECT, which Glibc's module hides.
var directFlag: Int32 {
  #if arch(arm64)
    0x10000
  #else
    0x4000
  #endif
}

/// The 4 KiB pieces in which two contents differ.
func differences(_ one: [UInt8], _ other: [UInt8]) -> [Range<Int>] {
  precondition(one.count == other.count)
  return stride(from: 0, to: one.count, by: 4096).compactMap { start in
    let piece = start..<min(start + 4096, one.count)
    let isEqual = unsafe one.withUnsafeBytes { first in
      unsafe other.withUnsafeBytes { second in
        unsafe memcmp(first.baseAddress! + start, second.baseAddress! + start, piece.count) == 0
      }
    }
    return isEqual ? nil : piece
  }
}

/// A loop device of a number that nobody else is given, so that it can be detached and attached again
/// by a test; gone when let go.
final class NumberedLoop: Sendable {
  let path: String
  let backing: String
  private let index: Int32
  private let folder: TemporaryDirectory

  init(size: Int, in folder: TemporaryDirectory) throws {
    self.folder = folder
    backing = folder.file("loop-" + hexadecimal(randomBytes(4)))
    try Shell.run("truncate", "-s", "\(size)", backing)
    // Far above what `losetup --find` gives out, which is the lowest that is free.
    index = Int32.random(in: 10_000..<1_000_000)
    path = "/dev/loop\(index)"
    // LOOP_CTL_ADD of loop(4).
    try Self.control(0x4C80, index)
    try attach()
  }

  func attach() throws { try Shell.run("losetup", path, backing) }
  func detach() throws { try Shell.run("losetup", "--detach", path) }

  private static func control(_ request: UInt, _ index: Int32) throws(StrobeError) {
    let control = try FileDescriptor(opening: "/dev/loop-control", O_RDWR)
    try systemCall("ioctl", "/dev/loop-control") { ioctl(control.number, request, index) }
  }

  deinit {
    _ = try? detach()
    // LOOP_CTL_REMOVE; whoever looks at new devices may have it open for a moment.
    for _ in 0..<100 {
      if (try? Self.control(0x4C81, index)) != nil { return }
      usleep(20_000)
    }
  }
}
