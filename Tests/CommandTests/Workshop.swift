import ChangeTracking
import Platform
import TestSupport
import Testing

/// A folder in memory with a repository, disks, and a copy of every disk at every restore point.
final class Workshop {
  /// What a disk held at a restore point.
  struct Kept {
    let point: String
    let disk: String
    let copy: String
  }

  let folder: TemporaryDirectory
  let strobe: Strobe
  private(set) var kept: [Kept] = []
  private var random: SeededGenerator
  private var copies = 0

  /// - Parameter repository: where it is made; in the folder unless given.
  init(seed: UInt64 = 1, chunkSize: String = "64KiB", repository: String? = nil) throws {
    folder = TemporaryDirectory(in: "/dev/shm")
    strobe = Strobe(
      repository: repository ?? folder.file("repository"),
      trackerFolder: "/sys/fs/bpf/strobe-test-" + hexadecimal(randomBytes(8)))
    random = SeededGenerator(seed: seed)
    try strobe("init", "--chunk-size", chunkSize).expect(0)
  }

  deinit { stopTrackers() }

  /// Stops what a test left running, and removes what is kept for it.
  func stopTrackers() {
    if ((try? FileFacts(path: strobe.trackerFolder)) ?? nil) != nil {
      _ = try? strobe("track", "stop", "--all")
    }
    // A start that was denied leaves it empty.
    _ = try? Shell.capture(["rmdir", strobe.trackerFolder])
    _ = try? Shell.run("rm", "-rf", TrackerPlace(root: strobe.trackerFolder).lockFolder)
  }

  func file(_ name: String) -> String { folder.file(name) }

  func bytes(_ count: Int) -> [UInt8] { random.bytes(count) }

  /// A new image file: random bytes, followed by a hole up to `size`.
  @discardableResult
  func image(_ name: String, _ size: Int, random: Int? = nil) throws -> String {
    let path = file(name)
    try Shell.run("truncate", "-s", "\(size)", path)
    try write(bytes(min(random ?? size, size)), to: path)
    return path
  }

  /// Overwrites bytes of a file or device, durably.
  func write(_ bytes: [UInt8], to path: String, at offset: Int = 0) throws {
    let file = try FileDescriptor(opening: path, 1)
    try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: offset)
    }
    try file.synchronize()
  }

  /// Takes a snapshot of `web`, which must end with `status`, and keeps a copy of every disk.
  @discardableResult
  func snapshot(
    _ words: String..., status: Int32 = 0, at location: SourceLocation = #_sourceLocation
  ) throws -> JSON {
    let result = try strobe.run(["snapshot", "web", "--json"] + words)
    try #require(result.status == status, "\(result.errors)", sourceLocation: location)
    let point = try result.json(at: location)
    for disk in point["disks"].list { try keep(disk, of: point) }
    return point
  }

  private func keep(_ disk: JSON, of point: JSON) throws {
    copies += 1
    let copy = file("copy-\(copies)")
    let source = try #require(disk["source"].text)
    if try FileFacts(path: source)?.isBlockDevice == true {
      // A file system writes its journal past the device's page cache, which may be behind.
      try Shell.run("sync", source)
      try Shell.run(
        "dd", "if=\(source)", "of=\(copy)", "bs=1M", "iflag=direct", "conv=sparse", "status=none")
      try Shell.run("truncate", "-s", "\(disk["size"].number!)", copy)
    } else {
      try Shell.run("cp", "--sparse=always", source, copy)
    }
    kept.append(
      Kept(point: "web@\(point["id"].text!)", disk: disk["name"].text!, copy: copy))
  }

  func forget(_ point: String) { kept.removeAll { $0.point.hasPrefix(point) } }

  /// Checks that the repository is whole and that every point kept is restored bit for bit.
  func expectWhole(at location: SourceLocation = #_sourceLocation) throws {
    let result = try strobe("verify")
    #expect(result.status == 0, "\(result.errors)\(result.output)", sourceLocation: location)
    for kept in kept {
      let target = file("restored.raw")
      let restored = try strobe(
        "restore", kept.point, "--disk", "\(kept.disk)=\(target)", "--overwrite", "--quiet")
      #expect(restored.status == 0, "\(restored.errors)", sourceLocation: location)
      expectSame(target, kept.copy, "\(kept.disk) of \(kept.point)", at: location)
      try removeFile(target)
    }
    #expect(leftovers() == [], sourceLocation: location)
  }

  /// What a command may leave behind but mustn't: locks, temporary and half-written files.
  func leftovers() -> [String] {
    let found = try? Shell.run(
      "find", folder.path, strobe.repository, "(", "-path", "*/locks/*", "-o", "-name", ".tmp-*",
      "-o",
      "-name", "*strobe-partial*", "-o", "-name", "spool-*", ")", "-print")
    return (found ?? "find failed").split(separator: "\n").map(String.init)
  }

  /// Files of journals: what interrupted snapshots left for the next one.
  func journals() throws -> [String] {
    let room = strobe.repository + "/journal"
    guard try FileFacts(path: room) != nil else { return [] }
    return try Shell.run("find", room, "-type", "f").split(separator: "\n").map(String.init)
  }

  /// The names of all layers and segments.
  func objects() throws -> Set<String> {
    let found = try Shell.run(
      "find", strobe.repository + "/layers", strobe.repository + "/segments", "-type", "f")
    return Set(found.split(separator: "\n").map(String.init))
  }
}

/// Checks that two files or devices are equal; a longer device only has to begin with `copy`.
func expectSame(
  _ path: String, _ copy: String, _ what: String = "",
  at location: SourceLocation = #_sourceLocation
) {
  let size = (try? Shell.run("stat", "--format=%s", copy).filter(\.isNumber)) ?? ""
  let isDevice = ((try? FileFacts(path: path)) ?? nil)?.isBlockDevice ?? false
  let words = isDevice ? ["cmp", "--bytes=\(size)", path, copy] : ["cmp", path, copy]
  let result = try? Shell.capture(words)
  #expect(
    result?.status == 0, "\(what): \(result?.output ?? "")\(result?.errors ?? "")",
    sourceLocation: location)
}

/// Mounts a file system for as long as `body` runs.
@discardableResult
func withMounted<Result>(
  _ kind: String, _ device: LoopDevice, in folder: TemporaryDirectory, make: Bool = false,
  _ body: (String) throws -> Result
) throws -> Result {
  let mount = try MountedFileSystem(kind, on: device, in: folder, make: make)
  return try withExtendedLifetime(mount) { try body(mount.path) }
}

/// A file system in memory with a limit, unmounted when the test lets go of it.
final class MemoryMount {
  let path: String
  private let folder: TemporaryDirectory

  init(size: String) throws {
    folder = TemporaryDirectory()
    path = folder.file("memory")
    try Shell.run("mkdir", path)
    try Shell.run("mount", "-t", "tmpfs", "-o", "size=\(size)", "strobe-test", path)
  }

  func remount(_ options: String) throws {
    try Shell.run("mount", "-o", "remount,\(options)", path)
  }

  /// Bytes in use.
  func used() throws -> Int {
    Int(
      try Shell.run("df", "--output=used", "-B1", path).split(separator: "\n")[1].filter(\.isNumber)
    )!
  }

  deinit { _ = try? Shell.run("umount", "--lazy", path) }
}
