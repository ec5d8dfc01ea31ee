import BlockDevices
import CChangeTracker
import CLinux
import Glibc
import Platform

/// Where pinned trackers and their locks are.
package struct TrackerPlace: Sendable {
  /// A folder of a BPF file system: `/sys/fs/bpf/strobe`, unless `STROBE_BPF_ROOT` says otherwise.
  package let root: String
  /// The folder of the locks.
  package let lockFolder: String

  package static let standard = TrackerPlace(
    root: unsafe getenv("STROBE_BPF_ROOT").map { unsafe String(cString: $0) }
      ?? "/sys/fs/bpf/strobe")

  /// - Parameter root: a folder in a BPF file system; made, and its parent mounted, when a tracker starts.
  package init(root: String) {
    self.root = root
    let standard = "/run/strobe"
    if root == "/sys/fs/bpf/strobe" {
      lockFolder = standard
    } else {
      // Another root has locks of its own.
      let bytes = Array(root.utf8)
      let hash = unsafe bytes.withUnsafeBytes { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
      lockFolder = standard + "/tracker-" + String(hash, radix: 16)
    }
  }

  func map(_ name: String) -> String { "\(root)/\(name)" }
  func link(_ program: String) -> String { "\(root)/link-\(program)" }
  func window(_ device: DeviceNumber) -> String { "\(root)/window-\(device.major)-\(device.minor)" }

  /// The devices that have a pin, in ascending order.
  func devices() throws(StrobeError) -> [DeviceNumber] {
    guard let facts = try FileFacts(path: root), facts.isDirectory else { return [] }
    return try namesInDirectory(root).compactMap { name -> DeviceNumber? in
      guard name.hasPrefix("window-") else { return nil }
      let halves = name.dropFirst(7).split(separator: "-").compactMap { Int($0) }
      return halves.count == 2 ? DeviceNumber(major: halves[0], minor: halves[1]) : nil
    }.sorted { ($0.major, $0.minor) < ($1.major, $1.minor) }
  }

  /// Makes the folder, and mounts a BPF file system for it when there is none.
  func prepare() throws(StrobeError) {
    let parent = parentDirectory(root)
    if unsafe cchange_tracker_is_bpf_file_system(parent) == 0 {
      // See bpf(2), "pinning"; systemd mounts it on every machine that it starts.
      guard unsafe mount("bpf", parent, "bpf", 0, nil) == 0 else {
        let error = StrobeError.system(errno, call: "mount", object: parent)
        throw error.explained("changes can't be tracked: no BPF file system: \(error.message)")
      }
    }
    if unsafe mkdir(root, 0o700) != 0 && errno != EEXIST {
      throw .system(errno, call: "mkdir", object: root)
    }
  }

  // MARK: Locks

  /// Serialises starting and stopping; waits for its turn for up to ten seconds.
  func lock() throws(StrobeError) -> FileDescriptor {
    let file = try lockFile("track.lock")
    for _ in 0..<1000 {
      if clinux_try_lock(file.number, 1) == 0 { return file }
      guard errno == EWOULDBLOCK || errno == EINTR else {
        throw .system(errno, call: "flock", object: file.path)
      }
      usleep(10_000)
    }
    throw StrobeError(.busy, "another process starts or stops change trackers")
  }

  /// Held by whoever takes marks from a device's tracker.
  /// - Throws: `busy` when somebody does.
  func lock(_ device: DeviceNumber) throws(StrobeError) -> FileDescriptor {
    let file = try lockFile("track-\(device.major)-\(device.minor).lock")
    if clinux_try_lock(file.number, 1) == 0 { return file }
    guard errno == EWOULDBLOCK else { throw .system(errno, call: "flock", object: file.path) }
    throw StrobeError(
      .busy, "the change tracker of \(DeviceTree.label(device)) is in use by another snapshot",
      advice: "wait until that has ended")
  }

  private func lockFile(_ name: String) throws(StrobeError) -> FileDescriptor {
    try makeDirectories(lockFolder)
    return try FileDescriptor(opening: "\(lockFolder)/\(name)", O_RDWR | O_CREAT)
  }
}
