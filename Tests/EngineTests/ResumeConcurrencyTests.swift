import Engine
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@Suite("Interrupted snapshots beside others")
struct ResumeConcurrencyTests {
  @Test("gc and other collections' snapshots take nothing that is taken over")
  func besideCollectors() throws {
    let test = try InterruptedDisk(seed: 1000, size: 5 << 20)
    let other = try DiskModel(test.folder.file("other"), size: 1 << 20)
    let repository = test.folder.file("repository")
    let isDone = Atomic<Bool>(false)
    let failures = Mutex<[String]>([])
    let path = other.path
    let work:
      @Sendable (@escaping @Sendable (SnapshotEngine, Int) throws -> Void) -> (() -> Void)? = {
        body in
        inBackground {
          var round = 0
          while !isDone.load(ordering: .relaxed) {
            round += 1
            do { try body(SnapshotEngine(repository: repository), round) } catch {
              failures.withLock { $0.append("\(error)") }
            }
          }
        }
      }
    let joins = [
      work { engine, _ in _ = try engine.collectGarbage() },
      work { engine, round in
        // Its sweep cleans up after the other's passes.
        try writeBytes([UInt8(truncatingIfNeeded: round)], to: path, at: round % 1000 * 512)
        var options = SnapshotOptions()
        options.disks = [.init(name: "o", path: path)]
        _ = try engine.snapshot("other", options)
      },
    ]
    defer {
      isDone.store(true, ordering: .relaxed)
      for join in joins { join?() }
    }
    var adopted = 0
    for round in 0..<25 {
      test.disk.write(test.random.bytes(5 << 20), at: 0)
      for _ in 0...(round % 3) { _ = try test.interrupt(after: 1 + round % 2 * 5_000_000) }
      let report = try test.snapshot()
      adopted += report.adoptedBytes
      #expect(try test.restoresRightly(report), "round \(round)")
      if round % 4 == 3 {
        try test.engine.delete([PointReference("m", id: report.point.id)])
      }
    }
    isDone.store(true, ordering: .relaxed)
    #expect(failures.withLock { $0 } == [])
    #expect(adopted > 20 << 20)
    #expect(try test.engine.verify().damage.isEmpty)
  }

  @Test("gc that drops journals leaves those of a collection that is written to")
  func dropBesideWriter() throws {
    let test = try InterruptedDisk(seed: 1001, size: 9 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    let repository = test.folder.file("repository")
    let progress = Progress()
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: test.disk.path)]
    options.workerCount = 1
    // In the middle of a pass that takes over: a collector that wants everything gone.
    let dropped = Mutex<[Int]>([])
    let stop = CancellationFlag(external: {
      if progress.doneBytes.load(ordering: .relaxed) > 2 << 20 {
        let isFirst = dropped.withLock { $0.isEmpty }
        if isFirst, let engine = try? SnapshotEngine(repository: repository),
          let report = try? engine.collectGarbage(dropsUnfinished: true)
        {
          dropped.withLock { $0.append(report.bytes) }
        }
      }
      return false
    })
    let report = try test.engine.snapshot("m", options, progress: progress, stop: stop)
    #expect(dropped.withLock { $0 } == [0])
    #expect(report.adoptedBytes == first)
    #expect(try test.restoresRightly(report))
  }
}
