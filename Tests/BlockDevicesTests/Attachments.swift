import BlockDevices
import Glibc
import Platform
import TestSupport

/// A loop device on a file or device of the caller's, or on a window of it; detached when let go.
final class AttachedLoop: Sendable {
  let path: String

  init(_ file: String, offset: Int = 0, sizeLimit: Int = 0, sectorSize: Int = 512) throws {
    let result = try Shell.capture([
      "losetup", "--find", "--show", "--sector-size", "\(sectorSize)", "--offset", "\(offset)",
      "--sizelimit", "\(sizeLimit)", file,
    ])
    guard result.status == 0 else { throw Shell.Failure(description: "losetup: \(result.errors)") }
    path = result.output.filter { !$0.isWhitespace }
  }

  deinit { _ = try? Shell.run("losetup", "--detach", path) }
}

/// Something mounted with any options; unmounted when let go.
final class MountPoint: Sendable {
  let path: String
  private let folder: TemporaryDirectory

  /// - Parameter words: what stands between `mount` and the mount point.
  init(_ words: String..., in folder: TemporaryDirectory) throws {
    self.folder = folder
    path = folder.file("mounted-" + hexadecimal(randomBytes(4)))
    try Shell.run("mkdir", path)
    let result = try Shell.capture(["mount"] + words + [path])
    guard result.status == 0 else { throw Shell.Failure(description: "mount: \(result.errors)") }
  }

  deinit {
    unmount(path)
    _ = try? Shell.run("rmdir", path)
  }
}

/// A device that is swapped to, until let go.
final class SwapSpace: Sendable {
  private let device: String

  init(on device: String) throws {
    self.device = device
    try Shell.run("mkswap", device)
    try Shell.run("swapon", device)
  }

  deinit { _ = try? Shell.run("swapoff", device) }
}

/// A loop device with a GPT of equal partitions.
final class PartitionedDisk: Sendable {
  let disk: LoopDevice
  let partitions: [String]

  init(_ count: Int, mebibytesEach: Int, in folder: TemporaryDirectory) throws {
    let size = (count * mebibytesEach + 4) << 20
    disk = try LoopDevice(size: size, partitions: true, in: folder)
    let script = folder.file("sfdisk-" + hexadecimal(randomBytes(4)))
    let lines = (0..<count).map { _ in "size=\(mebibytesEach)MiB\n" }
    try writeBytes(Array(("label: gpt\n" + lines.joined()).utf8), to: script)
    try Shell.run("sh", "-c", "sfdisk --quiet \(disk.path) < \(script)")
    // A kernel that can't read partition tables itself is told of the partitions.
    try Shell.run("partx", "--update", disk.path)
    partitions = (1...count).map { [disk] in "\(disk.path)p\($0)" }
  }
}

/// The device number of a special file.
func deviceNumber(_ path: String) throws -> DeviceNumber {
  guard let facts = try FileFacts(path: path), facts.isBlockDevice else {
    throw Shell.Failure(description: "\(path) is no block device")
  }
  return facts.specialDevice
}
