import Glibc
import Platform

/// What the machine must have for a test; a test that lacks it skips by name.
package enum Machine {
  package static let isRoot = geteuid() == 0
  /// Tests that run for long do more when `STROBE_LONG` is 1.
  package static let runsLong =
    unsafe getenv("STROBE_LONG").map { unsafe String(cString: $0) } == "1"

  /// Whether loop devices can be attached here.
  package static let hasLoopDevices: Bool = {
    guard isRoot, Shell.exists("losetup") else { return false }
    let folder = TemporaryDirectory()
    return (try? LoopDevice(size: 1 << 20, in: folder)) != nil
  }()

  package static func has(_ programs: String...) -> Bool { programs.allSatisfy(Shell.exists) }
}

/// A loop device on a sparse file, detached when the test lets go of it.
package final class LoopDevice: Sendable {
  /// `/dev/loopN`.
  package let path: String
  /// The file behind it.
  package let backing: String
  private let folder: TemporaryDirectory

  /// - Parameters:
  ///   - size: bytes of the sparse file.
  ///   - sectorSize: 512 or 4,096.
  ///   - partitions: whether the kernel is to look for a partition table.
  package init(
    size: Int, sectorSize: Int = 512, partitions: Bool = false, in folder: TemporaryDirectory
  ) throws {
    self.folder = folder
    backing = folder.file("loop-" + hexadecimal(randomBytes(4)))
    try Shell.run("truncate", "-s", "\(size)", backing)
    path = try Self.attach(backing, sectorSize: sectorSize, partitions: partitions)
  }

  private static func attach(_ file: String, sectorSize: Int, partitions: Bool) throws -> String {
    var words = ["losetup", "--find", "--show", "--sector-size", "\(sectorSize)"]
    if partitions { words.append("--partscan") }
    let result = try Shell.capture(words + [file])
    guard result.status == 0 else { throw Shell.Failure(description: "losetup: \(result.errors)") }
    return result.output.filter { !$0.isWhitespace }
  }

  deinit { _ = try? Shell.run("losetup", "--detach", path) }
}

/// A file system mounted on a device, unmounted when the test lets go of it.
package final class MountedFileSystem: Sendable {
  package let path: String
  private let device: LoopDevice
  private let folder: TemporaryDirectory

  /// - Parameters:
  ///   - kind: `ext4`, `xfs` or `btrfs`.
  ///   - make: whether a new one is made first.
  package init(
    _ kind: String, on device: LoopDevice, in folder: TemporaryDirectory, make: Bool = true
  ) throws {
    self.device = device
    self.folder = folder
    if make {
      let force = kind == "ext4" ? "-F" : "-f"
      try Shell.run("mkfs.\(kind)", "-q", force, device.path)
    }
    path = folder.file("mount-" + hexadecimal(randomBytes(4)))
    try Shell.run("mkdir", path)
    try Shell.run("mount", device.path, path)
  }

  deinit {
    unmount(path)
    _ = try? Shell.run("rmdir", path)
  }
}

/// Unmounts what a test mounted.
package func unmount(_ path: String) {
  // A program being started right now, for another test, may hold a descriptor until it runs: then
  // the file system goes as soon as that is closed.
  if (try? Shell.run("umount", path)) == nil { _ = try? Shell.run("umount", "--lazy", path) }
}
