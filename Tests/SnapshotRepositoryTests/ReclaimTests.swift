import ChangeDetection
import Platform
import TestSupport
import Testing

@testable import SnapshotRepository

/// Random histories of two disks, with deletions and collections between, against plain copies and a naive
/// idea of what is live.
@Suite("Reclaim")
struct ReclaimTests {
  private let test: TestRepository
  private var collection: TestCollection
  private var copies: [String: [String: ModelDisk]] = [:]
  private var now: [String: ModelDisk] = [
    "a": ModelDisk(size: 300 * 4096, [0: 3, 1: 5, 299: 7]), "b": ModelDisk(size: 9 * 4096, [1: 2]),
  ]

  init() throws {
    test = try TestRepository()
    collection = try TestCollection(test.repository)
  }

  private mutating func snapshot(
    _ random: inout SeededGenerator, mayBranch: Bool = true
  ) throws {
    for name in now.keys.sorted() {
      var disk = now[name]!
      if Int.random(in: 0..<12, using: &random) == 0 {
        disk.resize(to: Int.random(in: 1...300, using: &random) * 4096)
      }
      for _ in 0..<Int.random(in: 0..<30, using: &random) {
        let isZero = Int.random(in: 0..<4, using: &random) == 0
        disk.set(
          Int.random(in: 0..<disk.geometry.chunkCount, using: &random),
          isZero ? nil : UInt64.random(in: 1..<400, using: &random))
      }
      now[name] = disk
    }
    let point = try collection.add(
      now.keys.sorted().map { ($0, now[$0]!) },
      keyframe: Int.random(in: 0..<6, using: &random) == 0,
      older: mayBranch && Int.random(in: 0..<8, using: &random) == 0)
    copies[point.id] = now
  }

  private func expectWhole(_ comment: Comment) throws {
    for point in collection.points {
      let (held, lock) = try test.repository.hold("web", point.id)
      defer { lock.release() }
      for (name, disk) in copies[point.id]! {
        #expect(try restore(test.repository, held, name) == disk.bytes, comment)
      }
    }
  }

  /// The blocks that some point's records touch, and the header's; found point by point.
  private func liveBlocks() throws -> [ObjectID: Set<Int>] {
    var live: [ObjectID: Set<Int>] = [:]
    for point in collection.points {
      let read = try RestorePoint.read(test.store, "web", point.id)
      for disk in read.disks {
        let chain = try Chain.open(disk, test.store)
        for segment in chain.segments { live[segment, default: [0]].insert(0) }
        for group in 0..<chain.geometry.groupCount {
          let map = try chain.resolved(group: group)
          for index in 0..<ChunkGeometry.chunksPerGroup where map.isStored(index) {
            let location = map.location(index)
            let first = Int(location.offset) / 4096
            let last = (Int(location.offset) + Int(location.length) - 1) / 4096
            live[chain.segments[Int(location.segment)], default: [0]].formUnion(first...last)
          }
        }
      }
    }
    return live
  }

  private func expectNothingDead(_ comment: Comment) throws {
    for (segment, blocks) in try liveBlocks() {
      #expect(
        try test.store.storage(of: segment.segmentName).allocated <= blocks.count * 4096, comment)
    }
  }

  @Test("frees all that is dead and nothing else, in any history", arguments: 0..<10)
  mutating func histories(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for step in 0..<25 {
      try snapshot(&random)
      while collection.points.count > 2, Int.random(in: 0..<5, using: &random) < 2 {
        try collection.delete(Int.random(in: 0..<collection.points.count - 1, using: &random))
      }
      guard Int.random(in: 0..<4, using: &random) == 0 else { continue }
      var options = GarbageCollection.Options()
      options.mayPunch = Bool.random(using: &random)
      options.maxUnused = 0
      options.isDryRun = true
      let objects = try test.objects()
      let planned = try GarbageCollection.run(
        test.repository, options, stop: CancellationFlag())
      #expect(try test.objects() == objects)
      options.isDryRun = false
      let done = try GarbageCollection.run(test.repository, options, stop: CancellationFlag())
      let comment: Comment = "seed \(seed), step \(step), punches \(options.mayPunch)"
      // Merging may leave segments that nothing names: they go whole, which a dry run can't foresee.
      let more = done.segments - planned.segments
      #expect(planned.layers == done.layers && planned.merges == done.merges, comment)
      #expect(more >= 0 && done.bytes == planned.bytes + more * 4096, comment)
      try expectNothingDead(comment)
      try expectWhole(comment)
    }
    try expectWhole("seed \(seed), end")
  }

  @Test("a segment whose dead share is small is not written again")
  mutating func share() throws {
    var random = SeededGenerator(seed: 7)
    now["a"] = ModelDisk(
      size: 200 * 4096, Dictionary(uniqueKeysWithValues: (0..<200).map { ($0, UInt64($0) * 2 + 1) })
    )
    try snapshot(&random)
    for position in 0..<20 { now["a"]!.set(position, 1001 + UInt64(position) * 2) }
    let point = try collection.add([("a", now["a"]!), ("b", now["b"]!)])
    copies[point.id] = now
    try collection.delete(0)
    var options = GarbageCollection.Options()
    options.mayPunch = false
    options.maxUnused = 0.5
    let lazy = try GarbageCollection.run(test.repository, options, stop: CancellationFlag())
    #expect(lazy.rewrittenSegments == 0 && lazy.freedParts == 0)
    options.maxUnused = 0.02
    let eager = try GarbageCollection.run(test.repository, options, stop: CancellationFlag())
    #expect(eager.rewrittenSegments == 1 && eager.freedParts >= 18 * 4096)
    try expectWhole("after a rewrite")
  }

  @Test("a point that is held keeps its layers, and is merged when it is let go")
  mutating func held() throws {
    var random = SeededGenerator(seed: 3)
    for _ in 0..<6 { try snapshot(&random) }
    for _ in 0..<3 { try collection.delete(1) }
    let (point, lock) = try test.repository.hold("web", collection.points[1].id)
    let busy = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    #expect(busy.inUse > 0)
    #expect(try restore(test.repository, point, "a") == copies[point.id]!["a"]!.bytes)
    lock.release()
    let free = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    #expect(free.inUse == 0)
    try expectWhole("after both")
  }

  @Test("a document with members that this program doesn't know is not written again")
  mutating func unknownMembers() throws {
    var random = SeededGenerator(seed: 4)
    for _ in 0..<5 { try snapshot(&random) }
    for _ in 0..<3 { try collection.delete(1) }
    let name = RestorePoint.objectName("web", collection.points[1].id)
    // A document's tail has 46 bytes.
    let old = try test.store.get(name, limit: 1 << 20).dropLast(46)
    let body = Array(old) + Array(",\n  \"zebra\" : 1".utf8)
    let tail = ",\n  \"checksum\" : \"xxh3-64:\(hexadecimal(checksum64(body)))\"\n}\n"
    let changed = body + Array(tail.utf8)
    try test.store.put(name, changed, replacing: true)
    _ = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    #expect(try test.store.get(name, limit: 1 << 20) == changed)
    try expectWhole("after gc")
  }

  /// The records that a point needs of a disk, found by resolving it whole.
  private func records(_ id: String, _ name: String) throws -> [String: Int] {
    let point = try RestorePoint.read(test.store, "web", id)
    let chain = try Chain.open(point.disks.first { $0.name == name }!, test.store)
    var records: [String: Int] = [:]
    for group in 0..<chain.geometry.groupCount {
      let map = try chain.resolved(group: group)
      for index in 0..<ChunkGeometry.chunksPerGroup where map.isStored(index) {
        let location = map.location(index)
        records["\(chain.segments[Int(location.segment)]) \(location.offset)"] =
          Int(location.length)
      }
    }
    return records
  }

  @Test("tells what each point needs, and what it has for itself", arguments: 0..<8)
  mutating func shares(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: 100 + seed)
    for _ in 0..<12 { try snapshot(&random, mayBranch: false) }
    for _ in 0..<4 {
      try collection.delete(Int.random(in: 0..<collection.points.count, using: &random))
    }
    if seed % 2 == 0 {
      _ = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    }
    let history = try History.read(test.store, CancellationFlag()).collections[0]
    for disk in history.disks {
      var shares = RecordShares(disk, test.store, CancellationFlag())
      let found = try shares.count()
      let needed = try history.points.map { point throws in try records(point.id, disk.name) }
      for (place, records) in needed.enumerated() {
        let own = records.filter { record in
          needed.count { $0[record.key] != nil } == 1
        }
        #expect(found[place].neededBytes == records.values.reduce(0, +), "seed \(seed)")
        #expect(found[place].ownBytes == own.values.reduce(0, +), "seed \(seed), point \(place)")
      }
    }
    let survey = try SpaceSurvey(test.repository, CancellationFlag())
    let live = try liveBlocks().values.reduce(0) { $0 + $1.count } * 4096
    #expect(survey.segments(of: "web").live == live)
    let objects = try test.objects().filter { $0.hasPrefix("segments/") }
    let named = survey.segments(of: "web").live + survey.segments(of: "web").dead
    let all = try objects.reduce(0) { $0 + (try test.store.storage(of: $1).allocated) }
    #expect(named <= all && all <= named + survey.unnamedBytes)
  }

  @Test(
    "a point that is committed, and a repair that names its segment, while gc runs lose nothing")
  mutating func repairMeanwhile() throws {
    var random = SeededGenerator(seed: 11)
    try snapshot(&random, mayBranch: false)
    // As far as gc comes before it frees: listed, asked who is alive, read all points.
    let candidates = Set(try test.objects())
    let history = try History.read(test.store, CancellationFlag())
    for position in 0..<8 { now["a"]!.set(position, 5001 + UInt64(position) * 2) }
    let point = try collection.add([("a", now["a"]!), ("b", now["b"]!)])
    copies[point.id] = now
    let old = PassID(collection.points[0].id)!.object(0)
    let new = PassID(point.id)!.object(0)
    try Repairs(old, [.init(damagedOffset: 64, segment: new, offset: 64, length: 4144)]).write(
      test.store, old)
    var outcome = GarbageCollection.Outcome()
    let before = try test.store.storage(of: new.segmentName)
    try SegmentReclaim(
      store: test.store, options: GarbageCollection.Options(), candidates: candidates, inUse: [],
      stop: CancellationFlag()
    ).run(history, &outcome)
    #expect(try test.store.storage(of: new.segmentName) == before)
    try expectWhole("after gc with an old reading")
    // Read anew, the replacement counts as needed, and goes with what it stands for.
    _ = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    #expect(try Repairs.read(test.store, old) != nil)
    try collection.delete(0)
    _ = try GarbageCollection.run(test.repository, stop: CancellationFlag())
    try expectWhole("at the end")
  }
}
