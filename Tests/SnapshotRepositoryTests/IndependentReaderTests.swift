import ChangeDetection
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// `Golden/read_format.py` knows nothing but `docs/format.md`.
@Suite(
  "A reader that was written from the format's page alone",
  .enabled(if: IndependentReader.isPossible, "needs python3"))
struct IndependentReaderTests {
  @Test("reads the golden repository as this program does")
  func golden() throws {
    let folder = TemporaryDirectory()
    let lines = try #require(readText(GoldenInputs.folder + "/expected.txt")).split(separator: "\n")
    for line in lines {
      let words = line.split(separator: " ").map(String.init)
      let bytes = try IndependentReader.read(
        GoldenInputs.folder + "/repository", words[0], words[1], in: folder)
      #expect(hexadecimal(checksum64(bytes)) == words[3], "\(line)")
    }
  }

  @Test("reads what today's writers write", arguments: 1...4)
  func today(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let test = try TestRepository()
    var collection = try TestCollection(
      test.repository,
      CollectionRecord(
        name: "web", chunkSize: ModelDisk.chunkSize,
        fingerprint: seed % 2 == 0 ? .sha256 : .xxh3, disks: []))
    var disk = ModelDisk(size: 4100 * 4096)
    for step in 0..<4 {
      if step > 0 { disk.resize(to: [3 * 4096 + 512, 200 * 4096, 4097 * 4096 + 1024][step - 1]) }
      for _ in 0..<30 {
        let seed: UInt64? =
          Int.random(in: 0..<4, using: &random) == 0 ? nil : random.next() % 99 + 1
        disk.set(Int.random(in: 0..<disk.geometry.chunkCount, using: &random), seed)
      }
      let point = try collection.add([("a", disk)], keyframe: step == 2)
      let bytes = try IndependentReader.read(test.path, point.id, "a", in: test.folder)
      #expect(bytes == disk.bytes, "seed \(seed), step \(step)")
    }
  }

  @Test("refuses a layer with a reserved byte that is not zero")
  func damaged() throws {
    let test = try TestRepository()
    var collection = try TestCollection(test.repository)
    let point = try collection.add([("a", ModelDisk(size: 4096, [0: 1]))])
    let path = test.path(point.disks[0].layerIDs[0].layerName)
    var bytes = try readFile(path)
    bytes[60] = 1
    try overwrite(path, bytes)
    #expect(throws: Shell.Failure.self) {
      _ = try IndependentReader.read(test.path, point.id, "a", in: test.folder)
    }
  }
}

enum IndependentReader {
  static let isPossible = (try? Shell.capture(["python3", "--version"]).status) == 0

  static func read(
    _ repository: String, _ point: String, _ disk: String, in folder: TemporaryDirectory
  ) throws -> [UInt8] {
    let output = folder.file("independent-" + hexadecimal(randomBytes(4)))
    let script = parentDirectory(GoldenInputs.folder) + "/read_format.py"
    try Shell.run("python3", script, repository, "web", point, disk, output)
    return try readFile(output)
  }
}
