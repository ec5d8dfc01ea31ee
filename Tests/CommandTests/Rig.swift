import CLinux
import ChangeTracking
import Foundation
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

/// What the suites about consistency need.
enum Needs {
  static let systems =
    Machine.hasLoopDevices
    && Machine.has("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "fsfreeze", "xfs_repair", "e2fsck")
  static let trackers = unsafe systems && access("/sys/kernel/btf/vmlinux", R_OK) == 0
  static let comment: Comment = "needs root, loop devices, e2fsprogs, xfsprogs and btrfs-progs"
  static let trackerComment: Comment = "needs root, loop devices, file systems and BTF"
}

/// A workshop with loop devices and file systems. However the test ends, they are thawed before they are
/// unmounted, and trackers are stopped before their devices go.
final class Rig: @unchecked Sendable {
  // Sendable: used by one test at a time.
  let shop: Workshop
  private var teardown: [() -> Void] = []
  private var mountPoints: [String] = []

  init(seed: UInt64 = 1, chunkSize: String = "64KiB", repository: String? = nil) throws {
    shop = try Workshop(seed: seed, chunkSize: chunkSize, repository: repository)
  }

  deinit {
    // Inner ones wait for outer ones: from the outside in, and once more.
    for path in mountPoints + mountPoints { thaw(path) }
    shop.stopTrackers()
    for step in teardown.reversed() { step() }
  }

  var strobe: Strobe { shop.strobe }
  func file(_ name: String) -> String { shop.file(name) }

  /// Does something when the test is over; last first.
  func atEnd(_ step: @escaping () -> Void) { teardown.append(step) }

  /// A new image file, random bytes followed by a hole.
  func image(_ mebibytes: Int, random: Int = 0, in directory: String? = nil) throws -> String {
    let path = (directory ?? shop.folder.path) + "/image-" + hexadecimal(randomBytes(4))
    try Shell.run("truncate", "-s", "\(mebibytes)M", path)
    if random > 0 { try shop.write(shop.bytes(random << 20), to: path) }
    return path
  }

  func loop(on file: String, partitions: Bool = false) throws -> String {
    let path = try Shell.run(
      "losetup", "--find", "--show", partitions ? "--partscan" : "--nooverlap", file
    ).filter { !$0.isWhitespace }
    teardown.append { _ = try? Shell.run("losetup", "--detach", path) }
    return path
  }

  /// A loop device on an image file of its own.
  func device(_ mebibytes: Int, random: Int = 0) throws -> (path: String, backing: String) {
    let backing = try image(mebibytes, random: random)
    return (try loop(on: backing), backing)
  }

  /// - Parameter words: what stands between `mount` and the mount point.
  func mount(_ words: String...) throws -> String {
    let path = file("mount-" + hexadecimal(randomBytes(4)))
    try makeDirectories(path)
    let result = try Shell.capture(["mount"] + words + [path])
    guard result.status == 0 else { throw Shell.Failure(description: "mount: \(result.errors)") }
    mountPoints.append(path)
    teardown.append { unmount(path) }
    return path
  }

  static func make(_ kind: String, on devices: String...) throws {
    let force = kind.hasPrefix("ext") ? "-F" : "-f"
    let result = try Shell.capture(["mkfs.\(kind)", "-q", force] + devices)
    guard result.status == 0 else { throw Shell.Failure(description: "mkfs: \(result.errors)") }
  }

  /// A file system on a loop device of its own.
  func fileSystem(
    _ kind: String = "ext4", mebibytes: Int? = nil
  ) throws -> (mountPoint: String, device: String, image: String) {
    let least = ["ext4": 24, "btrfs": 128]
    let image = try image(mebibytes ?? least[kind] ?? 320)
    let device = try loop(on: image)
    try Self.make(kind, on: device)
    return (try mount(device), device, image)
  }

  func unmountNow(_ path: String) throws {
    try Shell.run("umount", path)
    mountPoints.removeAll { $0 == path }
  }

  /// Runs a program with an environment in which it uses this rig's repository and trackers.
  func run(_ words: [String]) throws -> Shell.Result {
    try Shell.capture(words, environment: strobe.environment)
  }

  /// The tracker of a device as `track status` shows it.
  func tracker(of device: String) throws -> JSON {
    try strobe("track", "status", device, "--json").json()[0]
  }
}

func thaw(_ path: String) {
  guard let file = try? FileDescriptor(opening: path, O_RDONLY) else { return }
  _ = clinux_thaw(file.number)
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

extension Rig {
  /// Checks that a restored file system needs no repair, and no journal replay where a freeze spares that.
  ///
  /// XFS keeps a log to be replayed on purpose when it is frozen (xfs_fs_freeze in the kernel): its
  /// files are all there without (`norecovery`), its counters only after it.
  func expectClean(
    _ kind: String, _ image: String, at location: SourceLocation = #_sourceLocation
  ) throws {
    if kind == "xfs" {
      let copy = try mount("-o", "nouuid", loop(on: image))
      try unmountNow(copy)
    }
    let words =
      switch kind {
      case "ext4": ["e2fsck", "-fn", image]
      case "xfs": ["xfs_repair", "-n", "-f", image]
      default: ["btrfs", "check", "--readonly", image]
      }
    let result = try Shell.capture(words)
    #expect(result.status == 0, "\(result.output)\(result.errors)", sourceLocation: location)
    let text = result.output + result.errors
    #expect(!text.contains("journal"), "\(text)", sourceLocation: location)
  }
}

/// Does something again and again on a thread of its own until it is let go.
final class Busy: Sendable {
  private let isDone = Atomic<Bool>(false)
  private let hasEnded = Atomic<Bool>(false)
  private let rounds = Atomic<Int>(0)

  /// - Parameter body: gets the number of the round, from 0; an error ends it.
  init(_ body: @escaping @Sendable (Int) throws -> Void) {
    Thread.detachNewThread { [self] in
      while !isDone.load(ordering: .relaxed) {
        guard (try? body(rounds.load(ordering: .relaxed))) != nil else { break }
        rounds.wrappingAdd(1, ordering: .relaxed)
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  var count: Int { rounds.load(ordering: .relaxed) }

  func end() {
    isDone.store(true, ordering: .relaxed)
    for _ in 0..<60_000 where !hasEnded.load(ordering: .acquiring) { usleep(1000) }
  }
}
