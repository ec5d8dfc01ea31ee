import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("The index of a collection's points")
struct PointIndexTests {
  private let test: TestRepository
  private let collection: TestCollection
  private var cache: String { test.path("cache/web/points.index") }

  init() throws {
    test = try TestRepository()
    var collection = try TestCollection(test.repository)
    // Enough for a cache to be written.
    for seed in 1...40 { try collection.add([("a", ModelDisk(size: 8192, [0: UInt64(seed)]))]) }
    self.collection = collection
  }

  private var all: [PointSummary] { collection.points.map(PointSummary.init) }

  /// Deletes all points but the last two and returns them: too few for the cache to be written again.
  private func deleteMost() throws -> [PointSummary] {
    for point in collection.points.dropLast(2) { try test.repository.delete("web", point.id) }
    return all.suffix(2)
  }

  private func load() throws -> PointIndex { try PointIndex.load(test.repository, "web") }

  @Test("lists every point, oldest first, with and without its cache")
  func lists() throws {
    #expect(try load().points == all)
    #expect(try FileFacts(path: cache) != nil)
    #expect(try load().points == all)
    try removeFile(cache)
    #expect(try load().points == all)
    #expect(try load().unreadable.isEmpty)
  }

  @Test("of a collection without points, or without anything, is empty")
  func empty() throws {
    _ = try TestCollection(test.repository, "other")
    #expect(try PointIndex.load(test.repository, "other").points.isEmpty)
    #expect(try PointIndex.load(test.repository, "nowhere").points.isEmpty)
  }

  @Test("is the same whatever byte of its cache is wrong and wherever it is cut off")
  func damagedCache() throws {
    _ = try load()
    let whole = try readFile(cache)
    #expect(whole.count == 24 + 40 * 80)
    let expected = try deleteMost()
    let places =
      Array(0..<100) + Array(stride(from: 100, to: whole.count, by: 7))
      + Array(whole.count - 8..<whole.count)
    for index in places {
      var bytes = whole
      bytes[index] ^= 0x41
      for bytes in [bytes, Array(whole[..<index])] {
        try overwrite(cache, bytes)
        #expect(try load().points == expected, "byte \(index)")
      }
    }
  }

  @Test(
    "doesn't believe reserved bytes, a level that is none, or another version, right checksum or not"
  )
  func hostileCache() throws {
    _ = try load()
    let whole = try readFile(cache)
    let expected = try deleteMost()
    // version, consistency and reserved bytes of the last row
    let last = 16 + 39 * 80
    for offset in [8, 12, last + 64, last + 71, last + 72, last + 79] {
      var bytes = Array(whole.dropLast(8))
      bytes[offset] = 0x7F
      bytes.append(littleEndian: checksum64(bytes))
      try overwrite(cache, bytes)
      #expect(try load().points == expected, "byte \(offset)")
    }
  }

  @Test("forgets points that were deleted and finds those that were added, whatever the cache says")
  func staleCache() throws {
    var collection = collection
    _ = try load()
    let old = try readFile(cache)
    try test.repository.delete("web", collection.points[1].id)
    try collection.add([("a", ModelDisk(size: 8192, [0: 9]))])
    let expected = collection.points.indices.filter { $0 != 1 }.map {
      PointSummary(collection.points[$0])
    }
    #expect(try load().points == expected)
    try overwrite(cache, old)
    #expect(try load().points == expected)
    #expect(try load().points == expected)
  }

  @Test("names the points that can't be read and lists the others")
  func unreadable() throws {
    let path = test.path(RestorePoint.objectName("web", collection.points[2].id))
    var bytes = try readFile(path)
    bytes[100] ^= 1
    try overwrite(path, bytes)
    try overwrite(test.path("collections/web/notes.json"), [1])
    try overwrite(test.path("collections/web/" + String(repeating: "A", count: 24) + ".json"), [1])
    let index = try load()
    #expect(index.points == all.indices.filter { $0 != 2 }.map { all[$0] })
    #expect(index.unreadable.count == 1)
    #expect(index.unreadable.first?.isDamage == true)
  }

  @Test("works where the cache can't be written")
  func noCache() throws {
    try overwrite(test.path("cache"), [1])
    #expect(try load().points == all)
    #expect(try load().points == all)
  }
}
