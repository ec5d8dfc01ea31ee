import ChangeDetection
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// Every byte of every kind of object flipped in turn, and each cut off at every length: what is read is an
/// error or the same as before, never anything else.
@Suite("An object with one wrong byte")
struct FlippedByteTests {
  private let test: TestRepository
  private let collection: TestCollection
  private let expected: [[UInt8]]

  init() throws {
    test = try TestRepository()
    var collection = try TestCollection(test.repository)
    var disk = ModelDisk(size: 10 * 4096 - 1024, [0: 2, 1: 4, 5: 6, 9: 8])
    var expected = [disk.bytes]
    try collection.add([("a", disk)])
    disk.set(1, nil)
    disk.set(2, 10)
    try collection.add([("a", disk)])
    expected.append(disk.bytes)
    disk.set(3, 12)
    try collection.add([("a", disk)], keyframe: true)
    expected.append(disk.bytes)
    self.collection = collection
    self.expected = expected
  }

  /// Reads everything again; each point is an error or the same.
  private func restoreAll() -> (errors: [StrobeError], wrong: Int) {
    var errors: [StrobeError] = []
    var wrong = 0
    for (index, point) in collection.points.enumerated() {
      do {
        let found = try RestorePoint.read(test.store, "web", point.id)
        if try restore(test.repository, found, "a") != expected[index] { wrong += 1 }
      } catch {
        errors.append(error as! StrobeError)
      }
    }
    return (errors, wrong)
  }

  /// - Parameter mustFail: whether a flipped byte must be an error; one that is missing always must.
  private func damage(_ name: String, mustFail: Bool) throws {
    let path = test.path(name)
    let whole = try readFile(path)
    for index in whole.indices {
      var bytes = whole
      bytes[index] ^= [1, 0x80, 0xFF, 0x20][index % 4]
      try overwrite(path, bytes)
      let (errors, wrong) = restoreAll()
      #expect(wrong == 0, "\(name) byte \(index)")
      #expect(!mustFail || !errors.isEmpty, "\(name) byte \(index)")
    }
    for length in whole.indices {
      try overwrite(path, Array(whole[..<length]))
      let (errors, wrong) = restoreAll()
      #expect(wrong == 0 && !errors.isEmpty, "\(name) cut to \(length)")
      #expect(errors.allSatisfy { $0.isDamage }, "\(name) cut to \(length)")
    }
    try overwrite(path, whole)
    let (errors, wrong) = restoreAll()
    #expect(errors.isEmpty && wrong == 0)
  }

  @Test("a layer is damaged")
  func layers() throws {
    for id in Set(collection.points.flatMap { $0.disks[0].layerIDs }) {
      try damage(id.layerName, mustFail: true)
    }
  }

  @Test("a segment is damaged")
  func segments() throws {
    for name in try test.objects() where name.hasPrefix("segments/") {
      // A run of one byte decompresses to the same from another distance: not every flip must fail.
      try damage(name, mustFail: false)
    }
  }

  @Test("a restore point is damaged")
  func points() throws {
    try damage(RestorePoint.objectName("web", collection.points[1].id), mustFail: true)
  }

  @Test("a longer object is damaged")
  func longer() throws {
    for name in [
      RestorePoint.objectName("web", collection.points[2].id),
      collection.points[2].disks[0].layerIDs[0].layerName,
    ] {
      let whole = try readFile(test.path(name))
      for tail in [[0], [10], Array(whole.suffix(128)), whole] {
        try overwrite(test.path(name), whole + tail)
        let (errors, wrong) = restoreAll()
        // A document that is there twice ends as a document should, but is none.
        #expect(
          wrong == 0 && errors.count == 1 && errors[0].isDamage,
          "\(name) and \(tail.count) bytes more")
      }
      try overwrite(test.path(name), whole)
    }
  }

  @Test("a collection's and a repository's own documents are damaged")
  func otherDocuments() throws {
    for name in ["collections/web/collection.json", "config.json"] {
      let path = test.path(name)
      let whole = try readFile(path)
      func read() throws {
        _ = try Repository.open(at: test.path)
        _ = try CollectionRecord.read(test.store, "web")
      }
      for index in whole.indices {
        var bytes = whole
        bytes[index] ^= UInt8(1 << (index % 8))
        for bytes in [bytes, Array(whole[..<index])] {
          try overwrite(path, bytes)
          let error = #expect(throws: StrobeError.self) { try read() }
          #expect(error?.isDamage == true)
        }
      }
      try overwrite(path, whole)
      try read()
    }
  }
}
