import CLinux
import Engine
import Glibc
import Platform
import Synchronization
import TestSupport

/// A disk, a repository, and snapshots that are stopped when they have stored some bytes.
final class InterruptedDisk {
  static let chunkSize = 4096

  let folder = TemporaryDirectory(in: "/dev/shm")
  /// A new one each time, as a new process would have.
  var engine: SnapshotEngine {
    get throws { try SnapshotEngine(repository: folder.file("repository")) }
  }
  let disk: DiskModel
  var random: SeededGenerator
  private var options = SnapshotOptions()

  /// - Parameter size: bytes of the disk: random ones, some that shrink, some zeros, a short last chunk.
  init(seed: UInt64, size: Int = 9 << 20, chunkSize: Int = chunkSize) throws {
    random = SeededGenerator(seed: seed)
    _ = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: chunkSize)
    disk = try DiskModel(folder.file("disk"), size: size + 1536)
    disk.write(random.bytes(size), at: 0)
    disk.write((0..<(size / 8)).map { UInt8(truncatingIfNeeded: $0 / 700) }, at: size / 3)
    disk.punch((size / 2)..<(size / 2 + size / 16))
    disk.write(Array("the short last chunk".utf8), at: size + 1024)
    options.disks = [.init(name: "d", path: disk.path)]
  }

  /// Takes a whole snapshot.
  func snapshot(workers: Int? = nil, full: Bool = false) throws -> SnapshotReport {
    options.workerCount = workers
    options.isFull = full
    return try engine.snapshot("m", options)
  }

  /// Takes a snapshot that is stopped when it has stored `bytes`.
  ///
  /// - Returns: bytes that it stored, or nil when it was done before.
  func interrupt(after bytes: Int, workers: Int? = nil) throws -> Int? {
    options.workerCount = workers
    let progress = Progress()
    let stop = CancellationFlag(external: {
      progress.storedBytes.load(ordering: .relaxed) >= bytes
    })
    let engine = try engine
    do throws(StrobeError) {
      _ = try engine.snapshot("m", options, progress: progress, stop: stop)
      return nil
    } catch {
      guard error.reason == .cancelled else { throw error }
      return progress.storedBytes.load(ordering: .relaxed)
    }
  }

  /// Whether a point restores to what the disk holds now.
  func restoresRightly(_ report: SnapshotReport) throws -> Bool {
    let target = folder.file("restored")
    defer { unsafe unlink(target) }
    _ = try engine.restore(
      PointReference("m", id: report.point.id), [RestoreTarget(disk: "d", path: target)])
    return try contents(target) == disk.content
  }

  /// Paths of files below a room of the repository.
  func files(_ room: String) throws -> [String] {
    let path = folder.file("repository/\(room)")
    guard unsafe access(path, F_OK) == 0 else { return [] }
    return try Shell.run("find", path, "-type", "f").split(separator: "\n").map(String.init)
      .sorted()
  }

  /// Bytes of records in all segments.
  func recordBytes() throws -> Int {
    try files("segments").reduce(0) { sum, path in
      sum + Int(try FileFacts(path: path)?.size ?? 0) - 64
    }
  }

  /// Keeps a copy of the repository, to come back to.
  func save() throws {
    try Shell.run(
      "cp", "-a", "--sparse=always", folder.file("repository"), folder.file("saved"))
  }

  func comeBack() throws {
    try Shell.run("rm", "-rf", folder.file("repository"))
    try Shell.run(
      "cp", "-a", "--sparse=always", folder.file("saved"), folder.file("repository"))
  }
}

extension SnapshotReport {
  var storedBytes: Int { point.disks.reduce(0) { $0 + $1.storedBytes } }
}
