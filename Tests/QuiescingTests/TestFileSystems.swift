import BlockDevices
import CLinux
import Glibc
import Platform
import Quiescing
import TestSupport
import Testing

/// What the tests of this room need.
enum Needs {
  static let systems =
    Machine.hasLoopDevices && Machine.has("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "fsfreeze")
  static let comment: Comment = "needs root, loop devices, xfsprogs, btrfs-progs and fsfreeze"

  /// How often a test that kills does so.
  static let rounds = Machine.runsLong ? 200 : 20

  /// Beside the test bundle: `swift test` builds it, because these tests depend on it.
  static let strobe: String = {
    let bundle = resolvedPath("/proc/self/exe") ?? CommandLine.arguments[0]
    return parentDirectory(bundle) + "/strobe"
  }()
}

/// File systems made for one test. However the test ends, they are thawed before they are unmounted.
final class TestFileSystems: @unchecked Sendable {
  // Sendable: used by one test at a time.
  let folder = TemporaryDirectory(in: "/dev/shm")
  private var teardown: [() -> Void] = []
  private(set) var mountPoints: [String] = []

  deinit {
    // Outermost last made: what lies on it has to be thawed after it and unmounted before it.
    for path in mountPoints.reversed() { Self.forceThaw(path) }
    for path in mountPoints { Self.forceThaw(path) }
    for step in teardown.reversed() { step() }
  }

  /// Where sessions keep their records, instead of /run.
  var recordFolder: String { folder.file("frozen") }

  var records: [String] { ((try? namesInDirectory(recordFolder)) ?? []).sorted() }

  static func forceThaw(_ path: String) {
    guard let file = try? FileDescriptor(opening: path, O_RDONLY) else { return }
    _ = clinux_thaw(file.number)
  }

  /// A new image file, sparse.
  func image(_ mebibytes: Int, in directory: String? = nil) throws -> String {
    let path = (directory ?? folder.path) + "/image-" + hexadecimal(randomBytes(4))
    try Shell.run("truncate", "-s", "\(mebibytes)M", path)
    return path
  }

  /// A loop device on a file or device.
  func loop(on file: String, partitions: Bool = false) throws -> String {
    let path = try Shell.run(
      "losetup", "--find", "--show", partitions ? "--partscan" : "--nooverlap", file
    ).filter { !$0.isWhitespace }
    teardown.append { _ = try? Shell.run("losetup", "--detach", path) }
    return path
  }

  /// Mounts something.
  ///
  /// - Parameter words: what stands between `mount` and the mount point.
  func mount(_ words: String..., at name: String? = nil) throws -> String {
    let path = folder.file(name ?? "mount-" + hexadecimal(randomBytes(4)))
    try makeDirectories(path)
    let result = try Shell.capture(["mount"] + words + [path])
    guard result.status == 0 else { throw Shell.Failure(description: "mount: \(result.errors)") }
    mountPoints.append(path)
    teardown.append { unmount(path) }
    return path
  }

  static func make(_ kind: String, on device: String) throws {
    try Shell.run("mkfs.\(kind)", "-q", kind == "ext4" ? "-F" : "-f", device)
  }

  /// A file system on a loop device of its own.
  func fileSystem(
    _ kind: String = "ext4", mebibytes: Int = 320, in directory: String? = nil
  ) throws -> (mountPoint: String, device: String, image: String) {
    let image = try image(mebibytes, in: directory)
    let device = try loop(on: image)
    try Self.make(kind, on: device)
    return (try mount(device), device, image)
  }

  /// Unmounts now.
  func unmountNow(_ path: String) throws {
    try Shell.run("umount", path)
    mountPoints.removeAll { $0 == path }
  }

  var options: FreezeOptions {
    var options = FreezeOptions()
    options.guardianExecutable = Needs.strobe
    options.recordFolder = recordFolder
    options.maxFreezeMilliseconds = 60_000
    return options
  }

  func session(
    on devices: [String], postThaw: HookCommand? = nil, _ options: FreezeOptions? = nil
  ) throws -> FreezeSession {
    try FreezeSession(found(on: devices), postThaw: postThaw, options ?? self.options)
  }
}

func reference(_ path: String) throws -> DiskReference {
  DiskReference(try #require(try FileFacts(path: path)))
}

func found(on paths: [String]) throws -> [FileSystemOnDisk] {
  try FileSystemsOnDisks.find(on: try paths.map(reference))
}

/// Whether FIFREEZE finds it frozen. One that isn't is frozen for a moment by this.
func isFrozen(_ path: String) throws -> Bool {
  let file = try FileDescriptor(opening: path, O_RDONLY)
  if clinux_freeze(file.number) == 0 {
    _ = clinux_thaw(file.number)
    return false
  }
  return errno == EBUSY
}

/// Waits until `condition` holds; gives up after a minute, so that a broken program can't hang a test.
func waitUntil(
  _ what: String, at location: SourceLocation = #_sourceLocation, _ condition: () throws -> Bool
) throws {
  for _ in 0..<60_000 {
    if try condition() { return }
    usleep(1000)
  }
  Issue.record("never: \(what)", sourceLocation: location)
}

/// A program that writes to a file once and ends.
func startWriter(_ directory: String) throws -> RunningProcess {
  try RunningProcess(["sh", "-c", "echo written > \(directory)/written-$$"])
}

/// Whether a process exists that isn't a zombie.
func isAlive(_ process: Int32) -> Bool {
  guard let text = readText("/proc/\(process)/stat"), let end = text.lastIndex(of: ")") else {
    return false
  }
  return text[end...].dropFirst(2).first != "Z"
}
