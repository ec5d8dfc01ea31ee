import Engine
import Glibc
import TestSupport
import Testing

/// Bit rot: a wrong byte anywhere is an error or makes no difference; it is never a wrong restore.
@Suite("A damaged repository never restores wrongly")
struct DamageTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let engine: SnapshotEngine
  private var kept: [(id: String, content: [UInt8])] = []

  init() throws {
    engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: 4096)
    let disk = try DiskModel(folder.file("disk"), size: 5 * 4096 + 512)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    disk.write((0..<8192).map { UInt8(truncatingIfNeeded: $0 / 512) }, at: 0)
    disk.write(Array("the short last chunk".utf8), at: 5 * 4096)
    kept.append((try engine.snapshot("m", options).point.id, disk.content))
    disk.write([UInt8](repeating: 7, count: 4096), at: 4096)
    disk.punch(0..<4096)
    kept.append((try engine.snapshot("m").point.id, disk.content))
  }

  /// Every object of the repository; locks, journals and caches are no part of it.
  private func objects() throws -> [String] {
    let output = try Shell.run(
      "find", folder.file("repository"), "-type", "f", "(", "-path", "*/collections/*", "-o",
      "-path", "*/layers/*",
      "-o", "-path", "*/segments/*", "-o", "-name", "config.json", ")")
    return output.split(separator: "\n").map(String.init).sorted()
  }

  /// - Returns: how many points could not be restored.
  private func restoreAll(_ what: String) throws -> Int {
    var failures = 0
    for point in kept {
      let target = folder.file("restored")
      do {
        let engine = try SnapshotEngine(repository: folder.file("repository"))
        _ = try engine.restore(
          PointReference("m", id: point.id), [RestoreTarget(disk: "d", path: target)])
        let isSame = try contents(target) == point.content
        #expect(isSame, "\(what): a wrong restore")
        unsafe unlink(target)
      } catch let error as StrobeError {
        failures += 1
        unsafe #expect(access(target, F_OK) != 0, "\(what): a partial file")
        switch error.reason {
        case .damaged, .newerVersion, .notFound: break
        default: Issue.record("\(what): \(error)")
        }
      }
    }
    return failures
  }

  @Test("Every byte of every object flipped in turn") func everyByte() throws {
    var tried = 0
    var harmless = 0
    for path in try objects() {
      let whole = try contents(path)
      for offset in whole.indices {
        var bytes = whole
        bytes[offset] ^= 1 << UInt8(offset % 8)
        try overwrite(path, bytes)
        let failures = try restoreAll("\(path) byte \(offset)")
        tried += 1
        if failures == 0 { harmless += 1 }
        // What restores don't need, verification still reads; the configuration is read when opened,
        // and some bytes of LZ4's have two values that stand for the same content.
        if failures == 0 && !path.hasSuffix("config.json") && !path.contains("/segments/") {
          let report = try engine.verify()
          #expect(!report.damage.isEmpty, "\(path) byte \(offset): nobody noticed")
        }
      }
      try overwrite(path, whole)
    }
    print("\(tried) bytes flipped, \(harmless) of them in what no restore needs")
    #expect(try restoreAll("whole again") == 0)
  }

  @Test("Every object cut short, emptied, lengthened and removed") func cutShort() throws {
    for path in try objects() {
      let whole = try contents(path)
      for count in [0, 1, whole.count / 2, whole.count - 1] {
        try overwrite(path, Array(whole[..<count]))
        _ = try restoreAll("\(path) cut to \(count)")
      }
      try overwrite(path, whole + [0])
      _ = try restoreAll("\(path) lengthened")
      unsafe unlink(path)
      _ = try restoreAll("\(path) removed")
      try overwrite(path, whole)
    }
    #expect(try restoreAll("whole again") == 0)
  }

  @Test("A snapshot on top of damage says so and restores rightly itself") func snapshotOnDamage()
    throws
  {
    for path in try objects() where !path.hasSuffix("config.json") {
      let whole = try contents(path)
      var bytes = whole
      bytes[whole.count * 2 / 3] ^= 0x10
      try overwrite(path, bytes)
      try Shell.run("rm", "-rf", folder.file("repository/cache"))
      let report = try engine.snapshot("m")
      // A damaged segment is not read by a snapshot: content is what verify is for.
      if !path.contains("/segments/") {
        let expected = try contents(folder.file("disk"))
        let target = folder.file("restored")
        _ = try engine.restore(
          PointReference("m", id: report.point.id), [RestoreTarget(disk: "d", path: target)])
        #expect(try contents(target) == expected, "\(path)")
        unsafe unlink(target)
      }
      try engine.delete([PointReference("m", id: report.point.id)])
      try overwrite(path, whole)
    }
    #expect(try restoreAll("whole again") == 0)
  }

  private func overwrite(_ path: String, _ bytes: [UInt8]) throws {
    let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    defer { close(file) }
    guard unsafe write(file, bytes, bytes.count) == bytes.count else {
      throw Shell.Failure(description: "\(path): \(errno)")
    }
  }
}
