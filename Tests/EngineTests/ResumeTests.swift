import Engine
import Platform
import TestSupport
import Testing

@Suite("A snapshot after interrupted ones")
struct ResumeTests {
  /// Bytes of records of one whole pass.
  private static func wholePass(seed: UInt64, size: Int = 9 << 20) throws -> Int {
    try InterruptedDisk(seed: seed, size: size).snapshot().storedBytes
  }

  @Test("stores nothing twice, wherever they were stopped", arguments: [1, 2], 0..<4)
  func oneInterruption(workers: Int, round: Int) throws {
    let seed = UInt64(100 + round)
    let whole = try Self.wholePass(seed: seed)
    let test = try InterruptedDisk(seed: seed)
    let point = Int.random(in: 1..<whole, using: &test.random)
    guard let first = try test.interrupt(after: point, workers: workers) else { return }
    #expect(try test.recordBytes() == first)
    #expect(try test.files("journal").count == 2)
    let report = try test.snapshot(workers: workers)
    #expect(report.adoptedBytes == first)
    #expect(report.storedBytes + first == whole)
    #expect(try test.recordBytes() == whole)
    #expect(try test.restoresRightly(report))
    #expect(try test.files("journal") == [])
    #expect(try test.files("locks") == [])
    #expect(try test.engine.collectGarbage().bytes == 0)
    #expect(try test.engine.verify().damage.isEmpty)
    #expect(try test.restoresRightly(report))
    let next = try test.snapshot()
    #expect(next.adoptedBytes == 0 && next.storedBytes == 0)
  }

  @Test("takes over from all of them", arguments: 0..<2)
  func threeInterruptions(round: Int) throws {
    let seed = UInt64(200 + round)
    let whole = try Self.wholePass(seed: seed, size: 22 << 20)
    let test = try InterruptedDisk(seed: seed, size: 22 << 20)
    var stored = 0
    for number in 1...3 {
      stored += try #require(try test.interrupt(after: 1 + number % 2 << 20, workers: 1))
      #expect(try test.recordBytes() == stored)
    }
    let report = try test.snapshot()
    #expect(report.adoptedBytes == stored)
    #expect(report.storedBytes + stored == whole)
    #expect(try test.restoresRightly(report))
    #expect(try test.files("journal") == [])
    #expect(try test.engine.collectGarbage().bytes == 0)
    #expect(try test.restoresRightly(report))
  }

  @Test("stores what was changed meanwhile, and only that", arguments: 0..<4)
  func changedBetween(round: Int) throws {
    let test = try InterruptedDisk(seed: UInt64(300 + round))
    let before = test.disk.content
    let first = try #require(try test.interrupt(after: 6 << 20, workers: 1))
    // One byte in each of twenty chunks that were stored.
    var changed: Set<Int> = []
    for _ in 0..<20 {
      let chunk = Int.random(in: 0..<500, using: &test.random)
      changed.insert(chunk)
      test.disk.write([test.disk.content[chunk * 4096 + 9] ^ 1], at: chunk * 4096 + 9)
    }
    let report = try test.snapshot(workers: 1)
    #expect(report.adoptedBytes < first)
    #expect(report.adoptedBytes >= first - changed.count * (4096 + 48))
    #expect(try test.restoresRightly(report))
    #expect(test.disk.content != before)
    // What is of no use any more is garbage.
    #expect(try test.engine.verify().damage.isEmpty)
    _ = try test.engine.collectGarbage()
    #expect(try test.restoresRightly(report))
  }

  @Test("counts changes against whatever point is the newest by then")
  func otherParent() throws {
    for isFull in [false, true] {
      let test = try InterruptedDisk(seed: 400)
      let old = try test.snapshot()
      test.disk.write(test.random.bytes(5 << 20), at: 0)
      let newer = try test.snapshot()
      test.disk.write(test.random.bytes(5 << 20), at: 1 << 20)
      let first = try #require(try test.interrupt(after: 1, workers: 1))
      try test.engine.delete([PointReference("m", id: newer.point.id)])
      let report = try test.snapshot(full: isFull)
      #expect(report.point.parent == old.point.id)
      #expect(report.adoptedBytes == first)
      #expect(try test.restoresRightly(report))
      _ = try test.engine.collectGarbage()
      #expect(try test.restoresRightly(report))
      #expect(try test.engine.verify().damage.isEmpty)
    }
  }

  @Test(
    "of a collection made anew, or with other chunks, takes nothing over", arguments: [4096, 8192])
  func recreated(chunkSize: Int) throws {
    let test = try InterruptedDisk(seed: 500)
    let first = try #require(try test.interrupt(after: 1 << 20, workers: 1))
    try Shell.run("rm", "-rf", test.folder.file("repository/collections/m"))
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: test.disk.path)]
    options.chunkSize = chunkSize
    let report = try test.engine.snapshot("m", options)
    #expect(report.adoptedBytes == 0)
    #expect(try test.files("journal") == [])
    #expect(try test.restoresRightly(report))
    #expect(try test.engine.collectGarbage().bytes > first)
    #expect(try test.restoresRightly(report))
  }

  @Test("finds what gc kept for it, unless gc was told to drop it")
  func collectedBetween() throws {
    let test = try InterruptedDisk(seed: 600)
    let first = try #require(try test.interrupt(after: 5 << 20, workers: 1))
    let kept = try test.engine.collectGarbage()
    #expect(kept.bytes == 0 && kept.unfinishedBytes >= first)
    try test.save()
    let report = try test.snapshot()
    #expect(report.adoptedBytes == first)
    #expect(try test.restoresRightly(report))
    try test.comeBack()
    let planned = try test.engine.collectGarbage(dryRun: true, dropsUnfinished: true)
    #expect(try test.files("journal").count == 2)
    let dropped = try test.engine.collectGarbage(dropsUnfinished: true)
    #expect(dropped.bytes >= first && dropped.unfinishedBytes == 0)
    #expect(planned.bytes == dropped.bytes)
    #expect(try test.files("segments") == [])
    #expect(try test.files("journal") == [])
    let anew = try test.snapshot()
    #expect(anew.adoptedBytes == 0)
    #expect(try test.restoresRightly(anew))
  }

  @Test("that stored nothing leaves no journal")
  func nothingStored() throws {
    let test = try InterruptedDisk(seed: 700)
    #expect(try test.interrupt(after: 0) == 0)
    #expect(try test.files("journal") == [])
    #expect(try test.files("segments") == [])
    let left = try Shell.run("find", test.folder.file("repository/journal"), "-mindepth", "2")
    #expect(left == "")
  }

  @Test("with large chunks, and a disk that grew or shrank meanwhile", arguments: [-3, 0, 5])
  func resized(chunks: Int) throws {
    let test = try InterruptedDisk(seed: 800, size: 20 << 20, chunkSize: 1 << 20)
    let first = try #require(try test.interrupt(after: 9 << 20, workers: 1))
    test.disk.resize(to: test.disk.content.count + chunks << 20)
    let report = try test.snapshot()
    #expect(report.adoptedBytes > 0 && report.adoptedBytes <= first)
    #expect(try test.restoresRightly(report))
  }
}
