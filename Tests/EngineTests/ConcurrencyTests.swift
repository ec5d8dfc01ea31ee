import Engine
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@Suite("Several at once")
struct ConcurrencyTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let engine: SnapshotEngine

  init() throws {
    engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: 4096)
  }

  @Test("Snapshots, restores, deletions and gc beside one another lose nothing")
  func everythingAtOnce() throws {
    let repository = folder.file("repository")
    let failures = Mutex<[String]>([])
    let writersLeft = Atomic<Int>(2)
    let folder = folder
    try onWorkers(3, stop: CancellationFlag()) { index throws(StrobeError) in
      do {
        if index < 2 {
          defer { writersLeft.subtract(1, ordering: .relaxed) }
          try Self.writeAndRead(repository, folder, index)
        } else {
          let engine = try SnapshotEngine(repository: repository)
          while writersLeft.load(ordering: .relaxed) > 0 { _ = try engine.collectGarbage() }
        }
      } catch {
        failures.withLock { $0.append("\(error)") }
      }
    }
    #expect(failures.withLock { $0 } == [])
    #expect(try engine.verify().damage.isEmpty)
  }

  private static func writeAndRead(
    _ repository: String, _ folder: TemporaryDirectory, _ number: Int
  ) throws {
    let engine = try SnapshotEngine(repository: repository)
    var random = SeededGenerator(seed: UInt64(number))
    let disk = try DiskModel(folder.file("disk-\(number)"), size: 300 * 512)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    options.keyframeLayerLimit = 3
    let name = "m\(number)"
    var kept: [(id: String, content: [UInt8])] = []
    for round in 0..<40 {
      disk.change(&random)
      kept.append((try engine.snapshot(name, options).point.id, disk.content))
      if kept.count > 6 {
        let index = Int.random(in: 0..<kept.count, using: &random)
        try engine.delete([PointReference(name, id: kept[index].id)])
        kept.remove(at: index)
      }
      let point = kept.randomElement(using: &random)!
      let target = folder.file("restored-\(number)-\(round)")
      _ = try engine.restore(
        PointReference(name, id: point.id), [RestoreTarget(disk: "d", path: target)])
      let isSame = try contents(target) == point.content
      guard isSame else { throw Shell.Failure(description: "\(name) \(point.id) restored wrongly") }
      unsafe unlink(target)
    }
  }

  @Test("Of two snapshots of one collection one is told that the other runs") func twoSnapshots()
    throws
  {
    let disk = try DiskModel(folder.file("disk"), size: 1 << 20)
    disk.write([1], at: 0)
    let engine = engine
    let path = disk.path
    let outcomes = Mutex<[String]>([])
    try onWorkers(4, stop: CancellationFlag()) { _ throws(StrobeError) in
      for _ in 0..<20 {
        do throws(StrobeError) {
          var options = SnapshotOptions()
          options.disks = [.init(name: "d", path: path)]
          let point = try engine.snapshot("m", options).point
          outcomes.withLock { $0.append(point.id) }
        } catch {
          guard error.reason == .busy else { throw error }
        }
      }
    }
    let points = try engine.list("m")[0].points
    #expect(Set(points.map(\.id)) == Set(outcomes.withLock { $0 }))
    #expect(points.map(\.sequence) == Array(1...points.count))
    #expect(try engine.verify().damage.isEmpty)
  }

  @Test(
    "A pass that is stopped leaves nothing behind but what the next takes over",
    arguments: [0, 1, 100_000, 700_000])
  func stopped(after bytes: Int) throws {
    let disk = try DiskModel(folder.file("disk"), size: 1 << 20)
    var random = SeededGenerator(seed: 3)
    disk.write(random.bytes(1 << 20), at: 0)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    let progress = Progress()
    let stop = CancellationFlag(external: { progress.doneBytes.load(ordering: .relaxed) >= bytes })
    let error = #expect(throws: StrobeError.self) {
      try engine.snapshot("m", options, progress: progress, stop: stop)
    }
    #expect(error?.reason == .cancelled)
    func left(_ room: String) throws -> Int {
      try Shell.run("find", folder.file("repository/\(room)"), "-type", "f")
        .split(separator: "\n").count
    }
    #expect(try left("layers") == 0 && left("locks") == 0)
    #expect(try left("journal") == 2 * left("segments"))
    let hasStored = try left("segments") > 0
    let report = try engine.snapshot("m", options)
    #expect(report.point.sequence == 1 && (report.adoptedBytes > 0) == hasStored)
    #expect(try left("journal") == 0)
  }
}
