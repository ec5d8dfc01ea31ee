import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("Garbage collection")
struct GarbageCollectionTests {
  private let test: TestRepository
  private var collection: TestCollection
  private var disks: [ModelDisk] = []

  init() throws {
    test = try TestRepository()
    collection = try TestCollection(test.repository)
    var disk = ModelDisk(size: 20 * 4096, [0: 3, 1: 5, 2: 7])
    for step in 0..<6 {
      disk.set(step, UInt64(step) * 2 + 11)
      disk.set(10, step % 2 == 0 ? UInt64(step) + 100 : nil)
      try collection.add([("a", disk)], keyframe: step == 3)
      disks.append(disk)
    }
  }

  private func run(dryRun: Bool = false) throws(StrobeError) -> GarbageCollection.Outcome {
    try GarbageCollection.run(test.repository, dryRun ? .dryRun : .init(), stop: CancellationFlag())
  }

  private func expectWhole(_ indices: [Int]) throws {
    for index in indices {
      let point = try RestorePoint.read(test.store, "web", collection.points[index].id)
      #expect(
        try restore(test.repository, point, "a") == disks[index].bytes, "point \(index)")
    }
  }

  @Test("removes nothing that a point needs")
  func nothing() throws {
    // The keyframe and the layer after it, which no point separates, become one.
    let first = try run()
    #expect(first.merges == 1 && first.mergedLayers == 2 && first.layers == 2)
    #expect(first.segments == 0 && first.freedParts == 0)
    try expectWhole(Array(0..<6))
    let before = try test.objects()
    let outcome = try run()
    #expect(
      outcome.layers == 0 && outcome.segments == 0 && outcome.removedBytes == 0
        && outcome.inUse == 0)
    #expect(try test.objects() == before)
    try expectWhole(Array(0..<6))
  }

  @Test("keeps what the remaining points need and removes the rest", arguments: 0..<64)
  func subsets(_ deleted: Int) throws {
    let kept = (0..<6).filter { deleted & 1 << $0 == 0 }
    for index in 0..<6 where !kept.contains(index) {
      try test.repository.delete("web", collection.points[index].id)
    }
    let before = try test.objects()
    let planned = try run(dryRun: true)
    #expect(try test.objects() == before, "a dry run removes nothing")
    let outcome = try run()
    #expect(planned.layers == outcome.layers && planned.segments == outcome.segments)
    #expect(planned.bytes == outcome.bytes, "\(planned) \(outcome)")
    #expect(planned.freedParts == outcome.freedParts)
    #expect(
      try before.count - test.objects().count == outcome.layers + outcome.segments - outcome.merges)
    try expectWhole(kept)
    let points = try kept.map { index throws in
      try RestorePoint.read(test.store, "web", collection.points[index].id)
    }
    let layers = Set(points.flatMap { $0.disks[0].layerIDs.map(\.layerName) })
    #expect(try Set(test.objects().filter { $0.hasPrefix("layers/") }) == layers)
    if kept.isEmpty { #expect(try test.objects().isEmpty) }
    let again = try run()
    #expect(again.layers + again.segments + again.merges + again.bytes == 0)
  }

  @Test("keeps segments that only a keyframe names")
  func keyframe() throws {
    for index in 0..<3 { try test.repository.delete("web", collection.points[index].id) }
    let outcome = try run()
    #expect(outcome.layers - outcome.mergedLayers == 3)
    try expectWhole([3, 4, 5])
  }

  @Test("leaves objects of a live pass and removes those of one that died")
  func passes() throws {
    let alive = PassID()
    let lock = try PassRegistration.begin(test.store, alive, note: "test")
    try test.store.put(alive.object(0).segmentName, [1, 2], replacing: false)
    let dead = PassID()
    try test.store.put(dead.object(0).segmentName, [1, 2, 3], replacing: false)
    try test.store.put("locks/commit-\(dead)", [], replacing: false)
    let outcome = try run()
    #expect(outcome.inUse == 1)
    #expect(outcome.segments == 1 && outcome.removedBytes >= 4096)
    #expect(try test.store.exists(alive.object(0).segmentName))
    lock.release()
    #expect(try run().segments == 1)
    try expectWhole(Array(0..<6))
  }

  @Test(
    "frees nothing while a document or a layer is damaged or missing",
    arguments: ["point", "layer", "no layer"])
  func unreadable(_ what: String) throws {
    try test.store.put(PassID().object(0).segmentName, [1], replacing: false)
    try test.repository.delete("web", collection.points[0].id)
    let point = collection.points[4]
    let layer = point.disks[0].layerIDs[1].layerName
    let name = what == "point" ? RestorePoint.objectName("web", point.id) : layer
    let path = test.path(name)
    var bytes = try readFile(path)
    bytes[bytes.count - 1] ^= 1
    if what == "no layer" { try removeFile(path) } else { try overwrite(path, bytes) }
    let before = try test.objects()
    let error = #expect(throws: StrobeError.self) { _ = try run() }
    #expect(error?.message.contains("nothing was freed") == true)
    #expect(try test.objects() == before)
  }

  @Test("passes over files that are no objects, and removes leftovers of dead writers")
  func strangers() throws {
    for name in [
      "layers/aa/readme", "segments/stray", "collections/web/x.json",
    ] {
      try makeDirectories(parentDirectory(test.path(name)))
      try overwrite(test.path(name), [1])
    }
    for name in [".tmp-1", "collections/.tmp-1", "collections/web/.tmp-1"] {
      try overwrite(test.path(name), [1])
    }
    #expect(try run().segments == 0)
    #expect(try FileFacts(path: test.path("segments/stray")) != nil)
    #expect(try FileFacts(path: test.path("layers/aa/readme")) != nil)
    for name in [".tmp-1", "collections/.tmp-1", "collections/web/.tmp-1"] {
      #expect(try FileFacts(path: test.path(name)) == nil)
    }
  }

  @Test(
    "frees nothing where a collection may be hidden: a file, a link that leads nowhere, no folder",
    arguments: [
      "echo > collections/web", "ln -s /nonexistent collections/web", "mv collections away",
      "ln -s /nonexistent collections/0123456789abcdef01234567",
    ])
  func hidden(change: String) throws {
    let objects = try test.objects()
    let folder = test.path(".")
    let isLink = change.hasSuffix("01234567")
    let hide = isLink || change.hasPrefix("mv") ? "" : "mv collections/web away &&"
    let place = isLink ? "ln -s /nonexistent collections/web/0123456789abcdef01234567.json" : change
    try Shell.run("sh", "-c", "cd \(folder) && \(hide) \(place)")
    let error = #expect(throws: StrobeError.self) { _ = try run() }
    #expect(error?.message.contains("nothing was freed") == true)
    #expect(try test.objects() == objects)
  }

  @Test("runs once at a time, and stops when it is told to")
  func alone() throws {
    let lock = try #require(try test.store.lock("locks/gc", note: "test"))
    let error = #expect(throws: StrobeError.self) { _ = try run() }
    #expect(error?.reason == .busy)
    lock.release()
    let stop = CancellationFlag()
    stop.cancel()
    let stopped = #expect(throws: StrobeError.self) {
      _ = try GarbageCollection.run(test.repository, stop: stop)
    }
    #expect(stopped?.reason == .cancelled)
    #expect(try test.store.names(in: "locks") == [])
  }

  @Test("a point that is held is not deleted")
  func held() throws {
    let (_, lock) = try test.repository.hold("web", collection.points[0].id)
    let error = #expect(throws: StrobeError.self) {
      try test.repository.delete("web", collection.points[0].id)
    }
    #expect(error?.reason == .busy)
    lock.release()
    try test.repository.delete("web", collection.points[0].id)
    let missing = #expect(throws: StrobeError.self) {
      try test.repository.delete("web", collection.points[0].id)
    }
    #expect(missing?.reason == .notFound)
  }

  @Test("beside snapshots and deletions of another collection harms no point")
  func concurrent() throws {
    let repository = test.repository
    let disks = disks
    try onWorkers(2, stop: CancellationFlag()) { (worker) throws(StrobeError) in
      do {
        if worker == 0 {
          for _ in 0..<30 {
            _ = try GarbageCollection.run(repository, stop: CancellationFlag())
          }
          return
        }
        var other = try TestCollection(repository, "other")
        for step in 0..<30 {
          let disk = disks[step % disks.count]
          let point = try other.add([("a", disk)], keyframe: step % 5 == 4)
          if step > 0 { try repository.delete("other", other.points[step - 1].id) }
          let (held, lock) = try repository.hold("other", point.id)
          defer { lock.release() }
          #expect(try restore(repository, held, "a") == disk.bytes)
        }
      } catch {
        throw error as! StrobeError
      }
    }
    try expectWhole(Array(0..<6))
  }
}
