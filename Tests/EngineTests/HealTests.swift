import Engine
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

/// Damage is found, told exactly, and healed by whoever still has the content.
@Suite("Damage is found and healed")
struct HealTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let engine: SnapshotEngine
  private let disk: DiskModel
  private var kept: [(id: String, content: [UInt8])] = []
  private static let chunk = 4096

  /// Four points of 40 chunks; chunk 3 changes in the third.
  init() throws {
    engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: Self.chunk)
    disk = try DiskModel(folder.file("disk"), size: 40 * Self.chunk)
    var random = SeededGenerator(seed: 5)
    disk.write(random.bytes(30 * Self.chunk), at: 0)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    options.workerCount = 1
    for step in 0..<4 {
      if step == 2 { disk.write(random.bytes(Self.chunk), at: 3 * Self.chunk) }
      if step == 3 { disk.write(random.bytes(Self.chunk), at: 20 * Self.chunk) }
      kept.append((try engine.snapshot("m", options).point.id, disk.content))
    }
  }

  /// The only segment of a point's pass.
  private func segment(_ index: Int) throws -> String {
    let id = kept[index].id
    return folder.file("repository/segments/\(id.prefix(2))/\(id)00000000")
  }

  /// Flips a byte in the middle of the `record`th record: all have a header, 48 bytes, and a raw chunk.
  private func damage(_ path: String, record: Int) throws {
    try flip(path, at: 64 + record * (48 + Self.chunk) + 1000)
  }

  private func flip(_ path: String, at offset: Int) throws {
    let file = unsafe open(path, O_RDWR | O_CLOEXEC)
    defer { close(file) }
    var byte: UInt8 = 0
    unsafe #expect(pread(file, &byte, 1, off_t(offset)) == 1)
    byte ^= 0x40
    unsafe #expect(pwrite(file, &byte, 1, off_t(offset)) == 1)
  }

  /// - Returns: for each point whether it restores, and rightly.
  private func restores(_ engine: SnapshotEngine? = nil) throws -> [Bool] {
    try kept.map { point throws in
      let target = folder.file("restored")
      defer { unsafe unlink(target) }
      do throws(StrobeError) {
        _ = try (engine ?? self.engine).restore(
          PointReference("m", id: point.id), [RestoreTarget(disk: "d", path: target)])
      } catch {
        #expect(error.isDamage || error.reason == .notFound, "\(error)")
        return false
      }
      #expect(try contents(target) == point.content)
      return true
    }
  }

  private func names(_ indices: [Int]) -> [String] { indices.map { "m@\(kept[$0].id.prefix(12))" } }

  @Test("every damaged chunk is told with its bytes and all points that need it, and no other")
  func told() throws {
    try damage(segment(0), record: 3)
    try damage(segment(0), record: 7)
    try damage(segment(0), record: 8)
    let report = try engine.verify()
    #expect(report.damage.count == 3)
    let third = try #require(report.damage.first { $0.range == 3 * 4096..<4 * 4096 })
    #expect(third.points == names([0, 1]) && third.disk == "d")
    for position in [7, 8] {
      let found = report.damage.first { $0.range == position * 4096..<(position + 1) * 4096 }
      #expect(found?.points == names([0, 1, 2, 3]))
    }
    #expect(try engine.verify(point: PointReference("m", id: kept[1].id)).damage.count == 3)
    #expect(try engine.verify(point: PointReference("m", id: kept[2].id)).damage.count == 2)
    #expect(try restores() == [false, false, false, false])
  }

  @Test("the next snapshot stores again what its disk still holds; older points are whole again")
  func healedBySnapshot() throws {
    try damage(segment(0), record: 3)
    try damage(segment(0), record: 7)
    try damage(segment(3), record: 0)
    #expect(try engine.verify().damage.count == 3)
    let report = try engine.snapshot("m")
    #expect(report.healedChunks == 2)
    // Chunk 3 of the first two points is on no disk any more.
    #expect(try restores() == [false, false, true, true])
    let left = try engine.verify()
    #expect(left.damage.map(\.points) == [names([0, 1])])
    // What was overwritten comes back: then it is healed as well.
    disk.write(Array(kept[0].content[3 * 4096..<4 * 4096]), at: 3 * 4096)
    let again = try engine.snapshot("m")
    #expect(again.healedChunks == 1)
    #expect(try restores() == [true, true, true, true])
    #expect(try engine.verify().damage.isEmpty)
  }

  @Test(
    "a lost segment is healed from the disk, chunk by chunk, and garbage collection keeps what healed it"
  )
  func lostSegment() throws {
    unsafe unlink(try segment(0))
    let lost = try engine.verify()
    #expect(!lost.damage.isEmpty)
    let report = try engine.snapshot("m")
    #expect(report.healedChunks == 28)
    // What chunks 3 and 20 held before is on no disk any more.
    #expect(try restores() == [false, false, false, true])
    for _ in 0..<2 { _ = try engine.collectGarbage() }
    #expect(try restores() == [false, false, false, true])
    try engine.delete(kept[..<3].map { PointReference("m", id: $0.id) })
    _ = try engine.collectGarbage()
    #expect(try restores()[3])
    #expect(try engine.verify().damage.isEmpty)
  }

  @Test("another repository gives back what no disk has", arguments: [true, false])
  func fromCopy(isSameObject: Bool) throws {
    let copy = folder.file("copy")
    try Shell.run("cp", "-r", folder.file("repository"), copy)
    if !isSameObject {
      // The copy's own record is bad too, but was healed there.
      let path = try segment(0).replacing(folder.file("repository"), with: copy)
      try damage(path, record: 5)
      let other = try SnapshotEngine(repository: copy)
      #expect(try other.verify().damage.count == 1)
      #expect(try other.heal().map(\.healedChunks) == [1])
      disk.punch(5 * 4096..<6 * 4096)
    }
    for record in [3, 5] { try damage(segment(0), record: record) }
    disk.punch(0..<10 * 4096)
    #expect(try engine.verify().damage.count == 2)
    #expect(try engine.heal().map(\.healedChunks) == [0])
    let reports = try engine.heal("m", from: copy)
    #expect(reports.map(\.healedChunks) == [2] && reports.map(\.damagedChunks) == [2])
    #expect(try restores() == [true, true, true, true])
    #expect(try engine.verify().damage.isEmpty)
    #expect(try engine.heal().map(\.damagedChunks) == [0])
  }

  @Test("a repository without a copy of the collection heals nothing and says so")
  func stranger() throws {
    try damage(segment(0), record: 3)
    _ = try engine.verify()
    let other = try SnapshotEngine.create(at: folder.file("other"), chunkSize: 4096)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    _ = try other.snapshot("m", options)
    let error = #expect(throws: StrobeError.self) {
      _ = try engine.heal("m", from: folder.file("other"))
    }
    #expect(error?.reason == .notFound)
    #expect(try restores() == [false, false, true, true])
  }

  @Test("a replacement that is damaged itself is damage, and is healed again")
  func damagedReplacement() throws {
    try damage(segment(0), record: 7)
    _ = try engine.verify()
    let point = try engine.snapshot("m").point
    #expect(try restores() == [true, true, true, true])
    try flip(
      folder.file("repository/segments/\(point.id.prefix(2))/\(point.id)00000000"), at: 64 + 1000)
    #expect(try engine.verify().damage.count == 1)
    #expect(try restores() == [false, false, false, false])
    #expect(try engine.heal().map(\.healedChunks) == [1])
    #expect(try restores() == [true, true, true, true])
  }

  @Test("a verification that ends early is continued by the next, oldest first")
  func continued() throws {
    var options = VerifyOptions()
    options.maxSeconds = 0
    let none = try engine.verify(collection: "m", options)
    #expect(none.isCutShort && none.checkedSegments == 1 && none.segmentCount == 3)
    let whole = try engine.verify()
    #expect(!whole.isCutShort && whole.checkedSegments == 3 && whole.checkedChunks == 32)
  }

  @Test("a sample reads about so much")
  func sampled() throws {
    var options = VerifyOptions()
    options.sample = 0
    #expect(try engine.verify(collection: "m", options).checkedChunks == 0)
    options.sample = 1
    #expect(try engine.verify(collection: "m", options).checkedChunks == 32)
  }

  @Test("beside garbage collections and deletions finds no damage where there is none")
  func besideReclaim() throws {
    var random = SeededGenerator(seed: 9)
    for _ in 0..<25 {
      disk.write(random.bytes(6 * 4096), at: Int.random(in: 0..<34, using: &random) * 4096)
      _ = try engine.snapshot("m")
    }
    let engine = engine
    let failures = Mutex<[String]>([])
    try onWorkers(2, stop: CancellationFlag()) { worker throws(StrobeError) in
      for _ in 0..<12 {
        do throws(StrobeError) {
          if worker == 0 {
            let found = try engine.verify().damage
            if !found.isEmpty { failures.withLock { $0.append("\(found)") } }
          } else {
            try engine.delete([PointReference("m", before: 12)])
            _ = try engine.collectGarbage()
          }
        } catch {
          // A point that the other holds for a moment.
          guard error.reason != .busy else { continue }
          failures.withLock { $0.append("\(worker == 0 ? "verify" : "gc"): \(error)") }
          return
        }
      }
    }
    #expect(failures.withLock { $0 } == [])
  }

  @Test("a walk whose layers are merged away again and again comes to its end")
  func mergedAway() throws {
    var random = SeededGenerator(seed: 10)
    for _ in 0..<30 {
      disk.write(random.bytes(6 * 4096), at: Int.random(in: 0..<34, using: &random) * 4096)
      _ = try engine.snapshot("m")
    }
    let engine = engine
    let looks = Mutex(0)
    let removals = Mutex(0)
    // The walk asks for each point and each layer whether it is to stop.
    let stop = CancellationFlag(external: {
      let isTurn = looks.withLock { looks in
        looks += 1
        return looks % 40 == 0 && removals.withLock { $0 } < 8
      }
      guard isTurn else { return false }
      do {
        try engine.delete([PointReference("m", before: 12)])
        let layers = try engine.collectGarbage().layers
        removals.withLock { $0 += layers > 0 ? 1 : 0 }
      } catch {
        Issue.record("\(error)")
      }
      return false
    })
    let report = try engine.verify(stop: stop)
    #expect(report.damage.isEmpty && !report.isCutShort)
    #expect(removals.withLock { $0 } == 8)
  }
}

extension PointReference {
  fileprivate init(_ collection: String, before: Int) {
    self = try! PointReference("\(collection)@-\(before)")
  }
}

extension String {
  fileprivate func replacing(_ prefix: String, with other: String) -> String {
    hasPrefix(prefix) ? other + dropFirst(prefix.count) : self
  }
}
