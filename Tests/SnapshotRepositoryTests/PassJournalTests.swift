import ChangeDetection
import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("The journal of a pass")
struct PassJournalTests {
  private let test: TestRepository
  private let collection = CollectionRecord(name: "web", chunkSize: 4096, disks: [])
  private var store: any ObjectStore { test.store }

  init() throws { test = try TestRepository() }

  /// A dead pass with a layer, two segments and a journal.
  private func interrupted() throws -> PassID {
    let pass = PassID()
    _ = try PassJournal(test.repository, pass, collection, disks: [("a", 1 << 20), ("b", 0)])
    for name in [
      pass.object(0).layerName, pass.object(0).segmentName, pass.object(5).segmentName,
    ] { try store.put(name, SegmentFormat.header(pass.object(0)), replacing: false) }
    try store.put("locks/pass-\(pass)", [], replacing: false)
    return pass
  }

  private func collect(
    dryRun: Bool = false, dropsUnfinished: Bool = false
  ) throws -> GarbageCollection.Outcome {
    var options = GarbageCollection.Options()
    options.isDryRun = dryRun
    options.dropsUnfinished = dropsUnfinished
    return try GarbageCollection.run(test.repository, options, stop: CancellationFlag())
  }

  private func segments(_ pass: PassID) -> Set<String> {
    [pass.object(0).segmentName, pass.object(5).segmentName]
  }

  @Test("keeps the segments of a dead pass from sweeps and gc; its layers and its registration go")
  func protects() throws {
    let pass = try interrupted()
    #expect(try UnfinishedPasses.all(store) == [pass])
    #expect(try PassRegistration.sweep(store) == 1)
    #expect(try store.names(in: "locks") == [])
    #expect(try test.objects() == segments(pass))
    let outcome = try collect()
    #expect(outcome.segments == 0 && outcome.bytes == 0 && outcome.unfinishedBytes >= 128)
    #expect(try test.objects() == segments(pass))
  }

  @Test("is dropped by gc when it is told to, unless somebody writes to the collection")
  func dropped() throws {
    let pass = try interrupted()
    let writer = try test.repository.lockWriter(of: "web", note: "test")
    #expect(try collect(dropsUnfinished: true).segments == 0)
    #expect(try test.objects() == segments(pass))
    writer.release()
    #expect(try collect(dryRun: true, dropsUnfinished: true).segments == 2)
    #expect(try test.objects() == segments(pass))
    #expect(try collect(dropsUnfinished: true).segments == 2)
    #expect(try test.objects() == [])
    #expect(try store.names(in: "journal/web") == [])
    #expect(try store.names(in: "locks") == [])
  }

  @Test("of a running pass is never dropped")
  func alive() throws {
    let pass = try interrupted()
    let lock = try #require(try store.takeOver(lock: "locks/pass-\(pass)", note: "test"))
    #expect(try UnfinishedPasses.removeJournals(test.repository, all: true) == [])
    #expect(try collect(dropsUnfinished: true).inUse == 3)
    #expect(try UnfinishedPasses.all(store) == [pass])
    lock.release()
  }

  @Test(
    "goes after a week, when both its own time and the file system's say so",
    arguments: [(8, 8, true), (8, 6, false), (6, 8, false), (6, 6, false), (-3, 8, false)])
  func age(createdDays: Int, modifiedDays: Int, isGone: Bool) throws {
    let pass = try interrupted()
    let folder = test.path("journal/web/\(pass)")
    let path = folder + "/journal.json"
    let text = String(decoding: try readFile(path), as: UTF8.self)
    let now = Timestamp.now
    let stamp = Timestamp(nanoseconds: now.nanoseconds - createdDays * 86_400_000_000_000)
    let start = try #require(text.firstRange(of: "\"created\" : \""))
    let end = try #require(text[start.upperBound...].firstIndex(of: "\""))
    let body = try #require(text.firstRange(of: ",\n  \"checksum\""))
    let changed = text[..<start.upperBound] + "\(stamp)" + text[end..<body.lowerBound]
    let sum = hexadecimal(checksum64(Array(changed.utf8)))
    try overwrite(path, Array("\(changed),\n  \"checksum\" : \"xxh3-64:\(sum)\"\n}\n".utf8))
    try Shell.run("sh", "-c", "touch -d '-\(modifiedDays) days' \(folder)/* \(folder)")
    #expect(
      try UnfinishedPasses.removeJournals(test.repository, all: false, dryRun: true).isEmpty
        != isGone)
    #expect(try FileFacts(path: path) != nil)
    #expect(try UnfinishedPasses.removeJournals(test.repository, all: false).isEmpty != isGone)
    #expect(try (FileFacts(path: folder) == nil) == isGone)
  }

  @Test("does not hold the secret, and says whose it is")
  func document() throws {
    let pass = try interrupted()
    let text = try #require(readText(test.path("journal/web/\(pass)/journal.json")))
    let secret = try #require(collection.secret)
    #expect(!text.contains(hexadecimal(secret.bytes)))
    #expect(!text.contains(hexadecimal(secret.bytes[..<8])))
    #expect(text.contains(collection.id) && text.contains("disk-1.spool"))
  }

  @Test("is opened by its own collection only; others remove it")
  func strangers() throws {
    let pass = try interrupted()
    #expect(EarlierPasses.open(test.repository, collection) != nil)
    #expect(try UnfinishedPasses.all(store) == [pass])
    for other in [
      CollectionRecord(name: "web", chunkSize: 4096, disks: []),
      CollectionRecord(name: "web", chunkSize: 8192, disks: []),
    ] {
      let mine = try interrupted()
      #expect(EarlierPasses.open(test.repository, other) == nil)
      #expect(try UnfinishedPasses.all(store) == [])
      #expect(try test.objects().isSuperset(of: segments(mine)))
    }
  }

  @Test("that can't be made leaves nothing")
  func unmakable() throws {
    try Shell.run(
      "sh", "-c", "mkdir '\(test.path("journal"))' && touch '\(test.path("journal/web"))'")
    #expect(throws: StrobeError.self) {
      _ = try PassJournal(test.repository, PassID(), collection, disks: [("a", 1)])
    }
    #expect(try UnfinishedPasses.all(store) == [])
  }
}
