import ChangeDetection
import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// Golden files of format 1. `STROBE_WRITE_GOLDEN=1 swift test --filter FormatGolden` writes them anew: only for a
/// new version of the format, beside the old ones.
@Suite("Format 1")
struct FormatGoldenTests {
  private static let writes = unsafe getenv("STROBE_WRITE_GOLDEN") != nil
  private let test: TestRepository
  private var store: any ObjectStore { test.store }

  init() throws { test = try TestRepository() }

  private func expect(_ bytes: [UInt8], _ name: String) throws {
    let path = GoldenInputs.folder + "/encodings/" + name
    if Self.writes {
      try makeDirectories(parentDirectory(path), mode: 0o755)
      try overwrite(path, bytes)
    }
    #expect(try readFile(path) == bytes, "\(name) is written otherwise than by format 1")
  }

  @Test("documents are written byte for byte and read back equal")
  func documents() throws {
    let point = try GoldenInputs.point()
    try expect(Document.encode(point), "point.json")
    try expect(Document.encode(GoldenInputs.collection()), "collection.json")
    try expect(Document.encode(GoldenInputs.configuration()), "config.json")
    let bytes = try readFile(GoldenInputs.folder + "/encodings/point.json")
    #expect(try Document.decode(RestorePoint.self, bytes, name: "point.json") == point)
  }

  @Test("a document of a newer version is called newer, one of version 0 damaged")
  func versions() throws {
    struct Other: Encodable { let format: Int }
    let newer = #expect(throws: StrobeError.self) {
      _ = try Document.decode(
        RestorePoint.self, Document.encode(Other(format: Document.newestFormat + 1)), name: "x")
    }
    #expect(newer?.reason == .newerVersion)
    for format in [0, -1] {
      let error = #expect(throws: StrobeError.self) {
        _ = try Document.decode(
          RestorePoint.self, Document.encode(Other(format: format)), name: "x")
      }
      #expect(error?.isDamage == true)
    }
  }

  @Test("segment headers and records are written byte for byte")
  func segment() throws {
    let pass = GoldenInputs.pass(0xAB)
    let writer = SegmentWriter(store, pass)
    let records = GoldenInputs.records()
    let (number, offset) = unsafe try records.withBytes { (bytes) throws(StrobeError) in
      unsafe try writer.append(bytes)
    }
    #expect(number == 0 && offset == 64)
    try writer.finish()
    let name = pass.object(0).segmentName
    #expect(name == "segments/ab/abababababababababababab00000000")
    try expect(store.get(name, limit: 1 << 20), "segment")
    let reader = ChunkReader(store, GoldenInputs.secret, segments: [pass.object(0)])
    let location = ChunkLocation(segment: 0, length: 48 + 26, offset: 64 + 48 + 512)
    let fingerprint = unsafe records.withUnsafeBytes {
      unsafe Fingerprint(at: $0.baseAddress! + 560 + 16)
    }
    #expect(
      try chunk(reader, location, fingerprint, length: 4096)
        == [UInt8](repeating: 0x41, count: 4096))
  }

  @Test("a segment of a newer version is called newer, not damaged")
  func newerSegment() {
    let id = GoldenInputs.pass(1).object(0)
    var header = Array(SegmentFormat.header(id).dropLast(8))
    header[8] = 2
    let newer = #expect(throws: StrobeError.self) {
      try SegmentFormat.check(header: header + checksum(of: header), of: id)
    }
    #expect(newer?.reason == .newerVersion)
    header[8] = 1
    header[40] = 1
    let reserved = #expect(throws: StrobeError.self) {
      try SegmentFormat.check(header: header + checksum(of: header), of: id)
    }
    #expect(reserved?.isDamage == true)
  }

  private func checksum(of bytes: [UInt8]) -> [UInt8] {
    var sum: [UInt8] = []
    sum.append(littleEndian: checksum64(bytes))
    return sum
  }

  @Test("layers are written byte for byte", arguments: [false, true])
  func layer(_ isKeyframe: Bool) throws {
    let id = GoldenInputs.pass(0xCD).object(0x0102_0304)
    #expect(id.layerName == "layers/cd/cdcdcdcdcdcdcdcdcdcdcdcd01020304")
    let header = LayerHeader(
      id: id, isKeyframe: isKeyframe,
      geometry: ChunkGeometry(diskSize: 5000 * 4096 - 512, chunkSize: 4096))
    let writer = try LayerWriter(store, header)
    for (group, map) in GoldenInputs.maps() { try writer.append(group: group, map) }
    try writer.finish(segments: [GoldenInputs.pass(1).object(0), GoldenInputs.pass(2).object(5)])
    try expect(store.get(id.layerName, limit: 1 << 20), isKeyframe ? "keyframe" : "layer")
  }

  @Test("the index of points is written byte for byte")
  func pointIndex() throws {
    var collection = try TestCollection(test.repository, GoldenInputs.collection())
    for number in 1...32 {
      try collection.add(
        [("os", ModelDisk(size: 512 * number))], pass: GoldenInputs.pass(UInt8(number)),
        created: Timestamp(nanoseconds: GoldenInputs.created.nanoseconds + number * 1_000_000_000))
    }
    _ = try PointIndex.load(test.repository, "web")
    try expect(store.get("cache/web/points.index", limit: 1 << 20), "points.index")
  }

  @Test("the head table is written byte for byte")
  func headTable() throws {
    let path = test.folder.file("head")
    let table = try FingerprintTable.create(
      path, geometry: ChunkGeometry(diskSize: 9000 * 4096, chunkSize: 4096))
    try expect(readFile(path), "fingerprints.invalid")
    var block = [UInt8](repeating: 0, count: FingerprintTable.blockSize)
    for index in 0..<32 { block[index] = UInt8(index + 1) }
    unsafe try block.withBytes { (bytes) throws(StrobeError) in
      unsafe try table.write(group: 0, bytes)
    }
    try table.validate(layer: GoldenInputs.pass(7).object(0).bytes)
    let bytes = try readFile(path)
    #expect(bytes.count == 8192 + 65_536, "only the block of group 0 is there")
    #expect(bytes[8224...].allSatisfy { $0 == 0 })
    try expect(Array(bytes[..<8224]), "fingerprints.start")
  }

  private var expectedPath: String { GoldenInputs.folder + "/expected.txt" }

  private func writeRepository() throws {
    let golden = GoldenInputs.folder + "/repository"
    try Shell.run("rm", "-rf", golden)
    let collection = try GoldenInputs.fill(test.repository)
    var lines = ""
    for point in collection.points {
      for disk in point.disks {
        let sum = hexadecimal(checksum64(try restore(test.repository, point, disk.name)))
        lines += "\(point.id) \(disk.name) \(disk.size) \(sum)\n"
      }
    }
    try Shell.run("rm", "-rf", test.path("locks"), test.path("cache"), test.path("journal"))
    try Shell.run("cp", "-r", test.path, golden)
    try overwrite(expectedPath, Array(lines.utf8))
  }

  @Test(
    "a repository that was written once is read for ever: keyframes, short chunks, shrunk and grown disks"
  )
  func repository() throws {
    if Self.writes { try writeRepository() }
    let copy = test.folder.file("copy")
    try Shell.run("cp", "-r", GoldenInputs.folder + "/repository", copy)
    let repository = try Repository.open(at: copy)
    let lines = try #require(readText(expectedPath)).split(separator: "\n")
    #expect(lines.count == 11)
    let models = GoldenInputs.disks()
    for line in lines {
      let words = line.split(separator: " ").map(String.init)
      let point = try RestorePoint.read(repository.store, "web", words[0])
      let bytes = try restore(repository, point, words[1])
      #expect(bytes.count == Int(words[2]))
      #expect(hexadecimal(checksum64(bytes)) == words[3])
      let model = models[point.sequence - 1].disks.first { $0.name == words[1] }
      #expect(bytes == model?.disk.bytes, "\(line)")
    }
    #expect(try PointIndex.load(repository, "web").points.map(\.sequence) == Array(1...7))
    let outcome = try GarbageCollection.run(repository, .dryRun, stop: CancellationFlag())
    #expect(outcome.layers == outcome.mergedLayers && outcome.segments == 0)
    // Reading leaves nothing but its own caches and locks.
    try Shell.run("rm", "-rf", copy + "/locks", copy + "/cache")
    try Shell.run("diff", "-r", GoldenInputs.folder + "/repository", copy)
  }
}
