import Engine
import Glibc
import Platform
import TestSupport
import Testing

/// What an interrupted pass left is worth what a power cut made of it: anything may stand there.
@Suite("A damaged journal costs storing again, never an error or a wrong byte")
struct JournalDamageTests {
  /// Changes a file: a bit, a range zeroed or filled with anything, its end cut off, something appended.
  private func damage(_ path: String, _ random: inout SeededGenerator) throws -> String {
    var bytes = try contents(path)
    let start = Int.random(in: 0..<max(bytes.count, 1), using: &random)
    let end = min(bytes.count, start + Int.random(in: 1...20_000, using: &random))
    let kind = Int.random(in: 0..<6, using: &random)
    switch kind {
    case 0 where !bytes.isEmpty: bytes[start] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    case 1: for index in start..<end { bytes[index] = 0 }
    case 2: bytes.replaceSubrange(start..<end, with: random.bytes(end - start))
    case 3: bytes.removeLast(bytes.count - start)
    case 4: bytes += random.bytes(5000)
    default: bytes = []
    }
    unsafe unlink(path)
    try writeBytes(bytes, to: path)
    return "\(path) kind \(kind) from \(start)"
  }

  @Test("Every file of it, damaged at random", arguments: 0..<2)
  func journalFiles(round: Int) throws {
    let test = try InterruptedDisk(seed: UInt64(900 + round), size: 5 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    try test.save()
    var adopted: [Int] = []
    for _ in 0..<25 {
      let path = try #require(try test.files("journal").randomElement(using: &test.random))
      let what = try damage(path, &test.random)
      let report = try test.snapshot(workers: 1)
      #expect(report.adoptedBytes <= first, "\(what)")
      #expect(report.warnings == [], "\(what)")
      #expect(try test.restoresRightly(report), "\(what)")
      #expect(try test.files("journal") == [], "\(what)")
      adopted.append(report.adoptedBytes)
      _ = try test.engine.collectGarbage()
      #expect(try test.restoresRightly(report), "\(what)")
      try test.comeBack()
    }
    #expect(adopted.contains { $0 > 0 } && adopted.contains { $0 < first })
  }

  @Test("Segments that it names, damaged, cut, emptied and removed", arguments: 0..<2)
  func segments(round: Int) throws {
    let test = try InterruptedDisk(seed: UInt64(950 + round), size: 5 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    try test.save()
    for attempt in 0..<20 {
      let path = try #require(try test.files("segments").first)
      var what = "removed"
      if attempt == 0 {
        unsafe unlink(path)
      } else if attempt == 1 {
        what = "header"
        try writeBytes([0xff], to: path, at: 20)
      } else {
        what = try damage(path, &test.random)
      }
      let report = try test.snapshot(workers: 1)
      #expect(attempt > 1 || report.adoptedBytes == 0)
      #expect(report.adoptedBytes <= first, "\(what)")
      #expect(try test.restoresRightly(report), "\(what)")
      #expect(try test.engine.verify().damage.isEmpty, "\(what)")
      try test.comeBack()
    }
  }

  @Test("One damaged record is stored again, the others are taken over")
  func oneRecord() throws {
    let test = try InterruptedDisk(seed: 970, size: 5 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    let path = try #require(try test.files("segments").first)
    // In the content of the first record, which is random and so stored as it is.
    let byte = try readBytes(path, at: 64 + 48 + 100, count: 1)
    try writeBytes([byte[0] ^ 0x20], to: path, at: 64 + 48 + 100)
    let report = try test.snapshot(workers: 1)
    #expect(report.adoptedBytes == first - 4096 - 48)
    #expect(try test.restoresRightly(report))
  }

  /// The entries of a spool are 32 bytes: fingerprint, segment (4), length (4), offset (8).
  @Test(
    "Locations that lead nowhere, with the right fingerprint beside them",
    arguments: [
      (16, [0xff, 0xff, 0xff, 0xff]), (16, [0, 0, 0, 0x80]), (16, [7, 0, 0, 0]),
      (20, [0, 0, 0, 0]), (20, [48, 0, 0, 0]), (20, [0xff, 0xff, 0xff, 0xff]), (20, [49, 0, 0, 0]),
      (24, [0, 0, 0, 0, 0, 0, 0, 0]), (24, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
      (24, [0, 0, 0, 0, 0, 0, 0, 0x7f]), (24, [0, 0, 0, 0, 0, 0, 0, 0x80]), (24, [65, 0]),
    ] as [(Int, [UInt8])])
  func hostileLocations(offset: Int, bytes: [UInt8]) throws {
    let test = try InterruptedDisk(seed: 980, size: 5 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    let spool = try #require(try test.files("journal").first { $0.hasSuffix(".spool") })
    for position in 0..<64 { try writeBytes(bytes, to: spool, at: position * 32 + offset) }
    let report = try test.snapshot(workers: 1)
    #expect(report.adoptedBytes == first - 64 * (4096 + 48))
    #expect(try test.restoresRightly(report))
  }

  @Test("What isn't a journal in its place is no trouble")
  func strangers() throws {
    let test = try InterruptedDisk(seed: 990, size: 5 << 20)
    let first = try #require(try test.interrupt(after: 1, workers: 1))
    let room = test.folder.file("repository/journal/m")
    let id = "0123456789abcdef01234567"
    try Shell.run(
      "sh", "-c",
      """
      cd \(room); mkdir \(id) 1123456789abcdef01234567 notes; touch 2123456789abcdef01234567 unnamed-12 \
      \(id)/disk-0.spool; mkdir 3123456789abcdef01234567; echo '{}' > 3123456789abcdef01234567/journal.json
      """)
    let report = try test.snapshot(workers: 1)
    #expect(report.adoptedBytes == first)
    #expect(try test.restoresRightly(report))
    let left = try Shell.run("ls", room).split(separator: "\n").map(String.init)
    #expect(left == ["2123456789abcdef01234567", "notes"])
  }
}
