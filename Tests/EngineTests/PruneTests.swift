import Engine
import Platform
import Synchronization
import TestSupport
import Testing

@Suite("Pruning")
struct PruneTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let engine: SnapshotEngine
  private let disk: DiskModel
  /// What the disk held at each point.
  private let kept: [(id: String, content: [UInt8])]

  init() throws {
    engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: 4096)
    disk = try DiskModel(folder.file("disk"), size: 64 * 512)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    options.keyframeLayerLimit = 3
    var random = SeededGenerator(seed: 21)
    var kept: [(id: String, content: [UInt8])] = []
    for _ in 0..<8 {
      disk.change(&random)
      kept.append((try engine.snapshot("web", options).point.id, disk.content))
    }
    self.kept = kept
  }

  private func last(_ count: Int) -> RetentionPolicy {
    var policy = RetentionPolicy()
    policy.keepLast = count
    return policy
  }

  private var ids: [String] {
    get throws { try engine.list("web")[0].points.map(\.id) }
  }

  /// Checks that exactly these points are there, and are what they were.
  private func expect(_ indices: [Int], at location: SourceLocation = #_sourceLocation) throws {
    #expect(try ids == indices.map { kept[$0].id }, sourceLocation: location)
    _ = try engine.collectGarbage()
    #expect(try engine.verify().damage.isEmpty, sourceLocation: location)
    for index in indices {
      let target = folder.file("target")
      _ = try engine.restore(
        PointReference("web", id: kept[index].id), [.init(disk: "d", path: target)])
      #expect(try contents(target) == kept[index].content, sourceLocation: location)
      try removeFile(target)
    }
  }

  @Test("What no rule keeps goes, and the rest is restored bit for bit")
  func prunes() throws {
    let dry = try engine.prune("web", last(3), dryRun: true)
    #expect(try ids == kept.map(\.id))
    let report = try engine.prune("web", last(3))
    for report in [dry, report] {
      #expect(report.points.map(\.outcome.rawValue).prefix(5).allSatisfy { $0 == "removed" })
      #expect(
        report.points.suffix(3).map(\.decision.keptBy) == [[.last], [.last], [.newest, .last]])
    }
    try expect([5, 6, 7])
    #expect(try engine.prune("web", last(3)).points.allSatisfy { $0.outcome == .kept })
  }

  @Test("Protected points stay, and go when they aren't any more")
  func protected() throws {
    let references = [1, 4].map { PointReference("web", id: kept[$0].id) }
    #expect(try engine.protect(references, note: "n").map(\.id) == [kept[1].id, kept[4].id])
    #expect(try engine.describe(references[0]).protection?.note == "n")
    let report = try engine.prune("web", last(1))
    #expect(report.points[1].decision.keptBy == [.protected])
    try expect([1, 4, 7])
    let error = #expect(throws: StrobeError.self) {
      try engine.delete([PointReference("web", id: kept[7].id), references[0]])
    }
    #expect(error?.reason == .refused)
    try expect([1, 4, 7])
    #expect(try engine.unprotect(references).map(\.wasProtected) == [true, true])
    #expect(try engine.unprotect(references).map(\.wasProtected) == [false, false])
    _ = try engine.prune("web", last(1))
    try expect([7])
  }

  @Test("Interrupted anywhere, it has removed the oldest and nothing else", arguments: 0...6)
  func interrupted(after count: Int) throws {
    let asked = Atomic<Int>(0)
    let stop = CancellationFlag(external: {
      asked.wrappingAdd(1, ordering: .relaxed).newValue > count
    })
    let error = #expect(throws: StrobeError.self) {
      try engine.prune("web", last(1), dryRun: false, stop: stop)
    }
    #expect(error?.reason == .cancelled)
    try expect(Array(count..<8))
  }

  @Test("A policy without rules, and a collection that isn't there, are errors")
  func errors() throws {
    let usage = #expect(throws: StrobeError.self) { try engine.prune("web", RetentionPolicy()) }
    #expect(usage?.reason == .usage)
    let missing = #expect(throws: StrobeError.self) { try engine.prune("wbe", last(1)) }
    #expect(missing?.reason == .notFound)
    let long = #expect(throws: StrobeError.self) {
      try engine.protect([PointReference("web@latest")], note: String(repeating: "x", count: 4097))
    }
    #expect(long?.reason == .usage)
    #expect(try ids == kept.map(\.id))
  }
}
