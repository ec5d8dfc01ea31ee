import ChangeDetection
import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// Format 2: documents of collections whose fingerprints aren't XXH3. Golden files as in ``FormatGoldenTests``.
@Suite("Format 2: SHA-256 fingerprints")
struct FingerprintKindTests {
  private static let writes = unsafe getenv("STROBE_WRITE_GOLDEN") != nil
  private static let folder = parentDirectory(GoldenInputs.folder) + "/format-2"
  private let test: TestRepository

  init() throws { test = try TestRepository() }

  private struct Fields: Encodable {
    var format = 2
    var id = GoldenInputs.pass(0xC2).description
    var name = "web"
    var chunkSize = ModelDisk.chunkSize
    var fingerprint = "sha256-128"
    var fingerprintSecret = hexadecimal(GoldenInputs.secret.bytes)
    var created = GoldenInputs.created
    var disks = [["name": "os", "source": "/dev/vg/os"]]
  }

  private func record(_ fields: Fields = Fields()) throws -> CollectionRecord {
    try Document.decode(CollectionRecord.self, Document.encode(fields), name: "collection.json")
  }

  private var disks: [ModelDisk] {
    var disk = ModelDisk(size: 9 * 4096 + 512, [0: 2, 3: 5, 9: 7])
    let first = disk
    disk.set(0, nil)
    disk.set(4, 8)
    return [first, disk]
  }

  /// The points of the golden repository.
  private func fill() throws -> TestCollection {
    var collection = try TestCollection(test.repository, record())
    for (index, disk) in disks.enumerated() {
      try collection.add(
        [("os", disk)], pass: GoldenInputs.pass(UInt8(index + 1)), created: GoldenInputs.created)
    }
    return collection
  }

  private func write(_ collection: TestCollection) throws {
    try Shell.run("rm", "-rf", Self.folder)
    try makeDirectories(Self.folder, mode: 0o755)
    try Shell.run("rm", "-rf", test.path("locks"), test.path("cache"), test.path("journal"))
    try Shell.run("cp", "-r", test.path, Self.folder + "/repository")
    try removeFile(Self.folder + "/repository/config.json")
  }

  @Test(
    "A repository is written byte for byte as it was once, and read back, also by another reader")
  func golden() throws {
    let collection = try fill()
    if Self.writes { try write(collection) }
    for room in ["collections", "layers", "segments"] {
      try Shell.run("diff", "-r", Self.folder + "/repository/" + room, test.path(room))
    }
    for (point, disk) in zip(collection.points, disks) {
      let read = try RestorePoint.read(test.store, "web", point.id)
      #expect(read == point && read.secret?.kind == .sha256)
      #expect(try restore(test.repository, read, "os") == disk.bytes)
      if IndependentReader.isPossible {
        let bytes = try IndependentReader.read(test.path, point.id, "os", in: test.folder)
        #expect(bytes == disk.bytes)
      }
    }
  }

  @Test("Only documents of other kinds than XXH3 have format 2")
  func formats() throws {
    func format(_ name: String) throws -> Int {
      struct Version: Decodable { let format: Int }
      return try Document.decode(
        Version.self, test.store.get(name, limit: 1 << 20), name: name
      ).format
    }
    for (kind, expected) in [(FingerprintKind.xxh3, 1), (.sha256, 2)] {
      let name = kind.rawValue
      var collection = try TestCollection(
        test.repository,
        CollectionRecord(
          name: name, chunkSize: ModelDisk.chunkSize, fingerprint: kind, disks: []))
      let point = try collection.add([("a", ModelDisk(size: 4096, [0: 1]))])
      #expect(try format(CollectionRecord.objectName(name)) == expected)
      #expect(try format(RestorePoint.objectName(name, point.id)) == expected)
      let record = try CollectionRecord.read(test.store, name)
      #expect(record.secret?.kind == kind)
      #expect(record.remembering([]) == record)
      // What is made again from a point is of its kind.
      let recovered = CollectionRecord(recoveredFrom: point)
      #expect(recovered.secret == record.secret)
      try recovered.write(test.store)
      #expect(try format(CollectionRecord.objectName(name)) == expected)
    }
  }

  @Test("A kind that is unknown, or newer than the document's format, is damage")
  func wrongKinds() throws {
    for (format, kind) in [(1, "sha256-128"), (2, "md5"), (1, ""), (2, "SHA256-128")] {
      var fields = Fields()
      fields.format = format
      fields.fingerprint = kind
      let name = CollectionRecord.objectName("web")
      try test.store.put(name, Document.encode(fields), replacing: true)
      let error = #expect(throws: StrobeError.self) {
        _ = try CollectionRecord.read(test.store, "web")
      }
      #expect(error?.isDamage == true, "\(format) \(kind)")
    }
    let collection = try fill()
    let name = RestorePoint.objectName("web", collection.points[0].id)
    let text = String(
      decoding: try test.store.get(name, limit: 1 << 20).dropLast(46), as: UTF8.self)
    for (old, new) in [
      ("\"format\" : 2", "\"format\" : 1"), ("sha256-128", "sha256-129"),
      ("\"fingerprint\" : \"sha256-128\"", "\"fingerprint\" : \"\""),
    ] {
      let body = Array(text.replacing(old, with: new).utf8)
      #expect(body != Array(text.utf8))
      let tail = ",\n  \"checksum\" : \"xxh3-64:\(hexadecimal(checksum64(body)))\"\n}\n"
      try test.store.put(name, body + Array(tail.utf8), replacing: true)
      let error = #expect(throws: StrobeError.self) {
        _ = try RestorePoint.read(test.store, "web", collection.points[0].id)
      }
      #expect(error?.isDamage == true, "\(new)")
    }
  }

  @Test("The index of points remembers the kind")
  func index() throws {
    var collection = try TestCollection(test.repository, record())
    for seed in 1...40 { try collection.add([("a", ModelDisk(size: 8192, [0: UInt64(seed)]))]) }
    let expected = collection.points.map(PointSummary.init)
    #expect(expected.allSatisfy { $0.fingerprint == "sha256-128" })
    #expect(try PointIndex.load(test.repository, "web").points == expected)
    #expect(try FileFacts(path: test.path("cache/web/points.index")) != nil)
    #expect(try PointIndex.load(test.repository, "web").points == expected)
  }

  @Test("The repository's default is in its configuration only where it isn't XXH3")
  func configuration() throws {
    for kind in FingerprintKind.allCases {
      let path = test.folder.file(kind.rawValue)
      let made = try Repository.create(
        at: path, defaultChunkSize: 4096, defaultFingerprint: kind)
      #expect(made.defaultFingerprint == kind)
      #expect(try Repository.open(at: path).defaultFingerprint == kind)
      #expect(readText(path + "/config.json")?.contains("defaultFingerprint") == (kind != .xxh3))
    }
  }
}
