import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// A file system in memory of a fixed size, unmounted when the test lets go of it.
private final class SmallFileSystem: Sendable {
  let path: String
  private let folder: TemporaryDirectory

  /// - Parameter size: bytes.
  init(size: Int) throws {
    folder = TemporaryDirectory()
    path = folder.file("small")
    try Shell.run("mkdir", path)
    try Shell.run("mount", "-t", "tmpfs", "-o", "size=\(size)", "none", path)
  }

  deinit { _ = try? Shell.run("umount", path) }
}

private func conform(_ place: String) throws {
  let store = DirectoryStore(place + "/store")
  try ObjectStoreConformance(store: store) { name in
    let file = store.path(name)
    let marker = place + "/locked"
    let process = try RunningProcess(
      [
        "sh", "-c",
        "mkdir -p \"${1%/*}\"; exec 9<>\"$1\"; flock -n 9 && : >\"$2\"; exec sleep 1000", "sh",
        file, marker,
      ])
    while unsafe access(marker, F_OK) != 0 { usleep(1000) }
    return process
  }.run()
}

@Suite("A store in a directory")
struct DirectoryStoreTests {
  @Test("does what every store must, in a directory on the machine's own disk")
  func temporaryDirectory() throws {
    let folder = TemporaryDirectory()
    try withExtendedLifetime(folder) { try conform(folder.path) }
  }

  @Test(
    "does what every store must, in memory",
    .enabled(if: unsafe access("/dev/shm", W_OK) == 0, "needs /dev/shm"))
  func memory() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    try withExtendedLifetime(folder) { try conform(folder.path) }
  }

  @Test(
    "does what every store must, on a file system of its own",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"), arguments: ["ext4", "xfs", "btrfs"])
  func fileSystem(_ kind: String) throws {
    guard Machine.has("mkfs.\(kind)") else { return }
    let folder = TemporaryDirectory()
    let device = try LoopDevice(size: 512 << 20, in: folder)
    let mounted = try MountedFileSystem(kind, on: device, in: folder)
    try withExtendedLifetime(mounted) { try conform(mounted.path) }
  }

  @Test(
    "that is full keeps the old object whole and shows nothing of the new",
    .enabled(if: Machine.isRoot, "needs root"))
  func full() throws {
    let small = try SmallFileSystem(size: 256 << 10)
    let store = DirectoryStore(small.path + "/store")
    let old = [UInt8](repeating: 1, count: 10_000)
    try store.put("room/a", old, replacing: false)
    let large = [UInt8](repeating: 2, count: 1 << 20)
    for (name, replacing) in [("room/a", true), ("room/b", false), ("other/c", true)] {
      let error = #expect(throws: StrobeError.self) {
        try store.put(name, large, replacing: replacing)
      }
      #expect(error?.errno == ENOSPC)
      #expect(error?.advice != nil)
    }
    #expect(try store.get("room/a", limit: 1 << 20) == old)
    #expect(try namesInDirectory(small.path + "/store/room") == ["a"], "nothing half-written stays")
    #expect(try store.names(in: "other") == [])
    try writeUntilFull(store, "room/large", large)
    try store.remove("room/large")
    try store.put("room/b", old, replacing: false)
    #expect(try store.get("room/b", limit: 1 << 20) == old)
  }

  /// The writer has closed the object when this returns: its space is free once it is removed.
  private func writeUntilFull(_ store: DirectoryStore, _ name: String, _ bytes: [UInt8]) throws {
    let writer = try store.create(name)
    let error = #expect(throws: StrobeError.self) {
      try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
        try unsafe writer.write(bytes, at: 0)
      }
    }
    #expect(error?.errno == ENOSPC)
  }

  @Test("removes what dead writers left, not what a live one is writing")
  func leftovers() throws {
    let folder = TemporaryDirectory()
    let store = DirectoryStore(folder.path)
    try store.put("room/a", [1], replacing: false)
    try overwrite(store.path("room/.tmp-dead"), [1, 2, 3])
    try overwrite(store.path("room/.other"), [1])
    let alive = try FileDescriptor(opening: store.path("room/.tmp-alive"), O_RDWR | O_CREAT)
    #expect(flock(alive.number, LOCK_SH | LOCK_NB) == 0)
    #expect(try store.names(in: "room") == ["a"], "what is being written isn't listed")
    try store.removeLeftovers(in: "room")
    #expect(try Set(namesInDirectory(folder.file("room"))) == ["a", ".tmp-alive", ".other"])
    #expect(flock(alive.number, LOCK_UN) == 0)
    try store.removeLeftovers(in: "room")
    try store.removeLeftovers(in: "nowhere")
    #expect(try Set(namesInDirectory(folder.file("room"))) == ["a", ".other"])
  }

  @Test("removes leftovers beside writers without disturbing any")
  func leftoversBesideWriters() throws {
    let folder = TemporaryDirectory()
    let store = DirectoryStore(folder.path)
    try onWorkers(3, stop: CancellationFlag()) { (worker) throws(StrobeError) in
      for round in 0..<200 {
        if worker == 0 {
          try store.removeLeftovers(in: "room")
        } else {
          try store.put("room/\(worker)-\(round)", [UInt8(worker)], replacing: false)
        }
      }
    }
    #expect(try store.names(in: "room").count == 400)
  }

  @Test("an object is not removed by one who locked another of its name")
  func removalOfAReplacedObject() throws {
    let folder = TemporaryDirectory()
    let store = DirectoryStore(folder.path)
    try store.put("room/a", [1], replacing: false)
    let lock = try store.hold("room/a")
    try store.put("room/a", [2], replacing: true)
    // The old object is held, the new one is not.
    let second = try store.hold("room/a")
    lock.release()
    #expect(try !store.removeUnlessHeld("room/a"))
    second.release()
    #expect(try store.removeUnlessHeld("room/a"))
  }
}
