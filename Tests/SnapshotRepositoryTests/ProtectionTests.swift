import Platform
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Protected points")
struct ProtectionTests {
  private let test: TestRepository
  private var collection: TestCollection

  init() throws {
    test = try TestRepository()
    collection = try TestCollection(test.repository)
    for seed in 1...3 { try collection.add([("a", ModelDisk(size: 8192, [0: UInt64(seed)]))]) }
  }

  private var ids: [String] { collection.points.map(\.id) }
  private func refusal(_ body: () throws -> Void) -> String? {
    do {
      try body()
      return nil
    } catch {
      guard let error = error as? StrobeError, error.reason == .refused else { return "\(error)" }
      return error.description
    }
  }

  @Test("A protected point isn't deleted until it is unprotected, and the list shows it")
  func protects() throws {
    let id = ids[1]
    try test.repository.protect("web", id, note: "before the upgrade")
    let said = refusal { try test.repository.delete("web", id) }
    #expect(said?.contains("web@\(id.prefix(12)) is protected since 20") == true)
    #expect(said?.contains("(before the upgrade); ") == true)
    #expect(said?.hasSuffix("strobe unprotect web@\(id.prefix(12))") == true)
    let index = try PointIndex.load(test.repository, "web")
    #expect(index.points.map(\.isProtected) == [false, true, false])
    #expect(index.unreadable.isEmpty)
    #expect(try test.repository.unprotect("web", id))
    #expect(try !test.repository.unprotect("web", id))
    try test.repository.delete("web", id)
    #expect(try PointIndex.load(test.repository, "web").points.map(\.id) == [ids[0], ids[2]])
  }

  @Test("Protecting again keeps since when, and the note unless there is a new one")
  func again() throws {
    func read() throws -> PointProtection? {
      try PointProtection.read(test.store, "web", ids[0])
    }
    #expect(try read() == nil)
    try test.repository.protect("web", ids[0], note: nil)
    let first = try #require(try read())
    try test.repository.protect("web", ids[0], note: "a")
    try test.repository.protect("web", ids[0], note: nil)
    #expect(try read()?.since == first.since)
    #expect(try read()?.note == "a")
    try test.repository.protect("web", ids[0], note: "b")
    #expect(try read()?.note == "b")
  }

  @Test("What isn't there can't be protected")
  func missing() throws {
    let id = PassID().description
    let error = #expect(throws: StrobeError.self) {
      try test.repository.protect("web", id, note: nil)
    }
    #expect(error?.reason == .notFound)
    #expect(try test.store.names(in: "collections/web").allSatisfy { !$0.hasSuffix(".protected") })
  }

  @Test("A protection protects whatever byte of it is wrong, wherever it is cut off")
  func damaged() throws {
    let id = ids[2]
    try test.repository.protect("web", id, note: "n")
    let path = test.path(PointProtection.objectName("web", id))
    let whole = try readFile(path)
    for index in whole.indices {
      var bytes = whole
      bytes[index] ^= 1
      for bytes in [bytes, Array(whole[..<index])] {
        try overwrite(path, bytes)
        #expect(refusal { try test.repository.delete("web", id) }?.contains("is protected") == true)
      }
    }
    #expect(try PointIndex.load(test.repository, "web").points[2].isProtected)
    // Another point's, and a folder in its place.
    try overwrite(path, Document.encode(PointProtection(point: ids[0], since: .now, note: nil)))
    #expect(refusal { try test.repository.delete("web", id) }?.contains("is protected") == true)
    try removeFile(path)
    try makeDirectories(path)
    #expect(refusal { try test.repository.delete("web", id) }?.contains("is protected") == true)
    try Shell.run("rmdir", path)
    // One that is damaged is mended by protecting again.
    try overwrite(path, [1])
    try test.repository.protect("web", id, note: nil)
    #expect(try PointProtection.read(test.store, "web", id)?.note == nil)
  }

  @Test("A point whose document is damaged can be protected too")
  func damagedPoint() throws {
    try overwrite(test.path(RestorePoint.objectName("web", ids[0])), [1, 2, 3])
    try test.repository.protect("web", ids[0], note: nil)
    #expect(refusal { try test.repository.delete("web", ids[0]) }?.contains("protected") == true)
  }

  @Test("Of protecting and deleting at once exactly one succeeds")
  func race() throws {
    var collection = collection
    for seed in 4...150 {
      let point = try collection.add([("a", ModelDisk(size: 8192, [0: UInt64(seed)]))])
      let repository = test.repository
      let outcome = Mutex<Set<String>>([])
      try onWorkers(2, stop: CancellationFlag()) { (worker) throws(StrobeError) in
        do throws(StrobeError) {
          if worker == 0 {
            try repository.protect("web", point.id, note: nil)
          } else {
            try repository.delete("web", point.id)
          }
          outcome.withLock { _ = $0.insert(worker == 0 ? "protected" : "deleted") }
        } catch {
          let expected: [StrobeError.Reason] =
            worker == 0 ? [.notFound, .busy] : [.refused, .busy]
          if !expected.contains(error.reason) { throw error }
        }
      }
      let isThere = try test.store.exists(RestorePoint.objectName("web", point.id))
      let isProtected = try PointProtection.read(test.store, "web", point.id) != nil
      #expect(outcome.withLock { $0 } == [isThere ? "protected" : "deleted"])
      #expect(isThere == isProtected)
    }
  }
}
