import Engine
import Glibc
import TestSupport
import Testing

/// Random disks, random changes, random chunk sizes: every point restores to what the disks held.
@Suite("Any chain of points restores every point bit for bit")
struct SnapshotPropertyTests {
  private struct Kept {
    let id: String
    let disks: [String: [UInt8]]
  }

  @Test("Chains of random changes", arguments: 1...14 as ClosedRange<UInt64>)
  func chain(seed: UInt64) throws {
    try run(seed: seed, pointCount: 12)
  }

  @Test("A chain of a hundred points") func longChain() throws {
    try run(seed: 4242, pointCount: 100)
  }

  @Test("A difference sees what a disk lost when it shrank, although it grew again")
  func shrunkBetween() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: 4096)
    let disk = try DiskModel(folder.file("disk"), size: 1 << 20)
    disk.write([UInt8](repeating: 1, count: 4096), at: 800_000 / 4096 * 4096)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    _ = try engine.snapshot("m", options)
    disk.resize(to: 400 << 10)
    _ = try engine.snapshot("m")
    disk.resize(to: 1 << 20)
    _ = try engine.snapshot("m")
    for (old, new, kind) in [
      ("-2", "latest", ChangedRange.Kind.cleared), ("latest", "-2", .changed),
    ] {
      let difference = try engine.difference(
        from: PointReference("m@" + old), to: PointReference("m@" + new))
      #expect(
        difference.disks[0].ranges
          == [ChangedRange(kind: kind, offset: 800_000 / 4096 * 4096, length: 4096)])
    }
  }

  @Test("A seed from the clock") func newSeed() throws {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    let seed = UInt64(time.tv_nsec)
    print("seed \(seed)")
    try run(seed: seed, pointCount: 15)
  }

  private func run(seed: UInt64, pointCount: Int) throws {
    var random = SeededGenerator(seed: seed)
    let folder = TemporaryDirectory(in: "/dev/shm")
    let chunkSize = 4096 << Int.random(in: 0...6, using: &random)
    let engine = try SnapshotEngine.create(
      at: folder.file("repository"), chunkSize: chunkSize,
      fingerprint: seed % 2 == 0 ? .xxh3 : .sha256)
    var models: [String: DiskModel] = [:]
    for name in ["a", "b"] {
      let size = Int.random(in: 1...2048, using: &random) * 512
      models[name] = try DiskModel(folder.file(name), size: size)
    }
    var options = SnapshotOptions()
    options.disks = models.keys.sorted().map { .init(name: $0, path: models[$0]!.path) }
    options.keyframeLayerLimit = Int.random(in: 2...8, using: &random)
    options.segmentRollover = Int.random(in: 1...40, using: &random) * 16_384
    options.workerCount = Int.random(in: 1...3, using: &random)
    var kept: [Kept] = []
    for _ in 0..<pointCount {
      for name in models.keys.sorted() { models[name]!.change(&random) }
      let report = try engine.snapshot("m", options)
      #expect(report.point.consistency == .crashConsistent, "seed \(seed)")
      #expect(report.warnings == [], "seed \(seed)")
      kept.append(Kept(id: report.point.id, disks: models.mapValues { $0.content }))
      try disturb(engine, folder, &kept, &random)
    }
    try check(engine, folder, kept, chunkSize: chunkSize, seed: seed)
  }

  /// What may happen between two snapshots and must not matter.
  private func disturb(
    _ engine: SnapshotEngine, _ folder: TemporaryDirectory, _ kept: inout [Kept],
    _ random: inout SeededGenerator
  ) throws {
    switch Int.random(in: 0..<8, using: &random) {
    case 0 where kept.count > 2:
      let index = Int.random(in: 0..<kept.count, using: &random)
      try engine.delete([PointReference("m", id: kept[index].id)])
      kept.remove(at: index)
    case 1: _ = try engine.collectGarbage()
    case 2: try Shell.run("rm", "-rf", folder.file("repository/cache"))
    default: break
    }
  }

  private func check(
    _ engine: SnapshotEngine, _ folder: TemporaryDirectory, _ kept: [Kept], chunkSize: Int,
    seed: UInt64
  ) throws {
    let report = try engine.verify()
    #expect(report.damage.isEmpty, "seed \(seed)")
    #expect(report.pointCount == kept.count, "seed \(seed)")
    for (index, point) in kept.enumerated() {
      let targets = point.disks.keys.sorted().map {
        RestoreTarget(disk: $0, path: folder.file("restored-\(index)-\($0)"))
      }
      _ = try engine.restore(PointReference("m", id: point.id), targets)
      for target in targets {
        let isSame = try contents(target.path) == point.disks[target.disk]!
        #expect(isSame, "seed \(seed), point \(index), disk \(target.disk)")
        try Shell.run("rm", target.path)
      }
      if index > 0 { try checkDifference(engine, kept[index - 1], point, chunkSize, seed) }
    }
  }

  /// What `difference` says is what a comparison of the kept copies says.
  private func checkDifference(
    _ engine: SnapshotEngine, _ old: Kept, _ new: Kept, _ chunkSize: Int, _ seed: UInt64
  ) throws {
    let difference = try engine.difference(
      from: PointReference("m", id: old.id), to: PointReference("m", id: new.id))
    for disk in difference.disks {
      let before = old.disks[disk.name]!
      let after = new.disks[disk.name]!
      var expected: [ChangedRange] = []
      for start in stride(from: 0, to: after.count, by: chunkSize) {
        let now = after[start..<min(start + chunkSize, after.count)]
        let then = start < before.count ? before[start..<min(start + chunkSize, before.count)] : []
        let isZero = now.allSatisfy { $0 == 0 }
        let wasZero = then.allSatisfy { $0 == 0 }
        if isZero && wasZero || now.elementsEqual(then) { continue }
        let kind: ChangedRange.Kind = isZero ? .cleared : .changed
        if let last = expected.last, last.kind == kind, last.offset + last.length == start {
          expected[expected.count - 1] = ChangedRange(
            kind: kind, offset: last.offset, length: last.length + now.count)
        } else {
          expected.append(ChangedRange(kind: kind, offset: start, length: now.count))
        }
      }
      #expect(disk.ranges == expected, "seed \(seed)")
    }
  }
}
