import ChangeDetection
import ChunkCodec
import Platform
import SnapshotRepository
import TestSupport

/// What the golden files were made of: fixed, so that today's writers must give the same bytes.
enum GoldenInputs {
  static let folder = parentDirectory(#filePath) + "/Golden/format-1"
  static let created = Timestamp("2026-11-21T08:15:30.250Z")!
  static let secret = FingerprintSecret((0..<192).map { UInt8($0 * 7 & 0xFF) })!

  /// The pass whose id is 12 times the same byte.
  static func pass(_ byte: UInt8) -> PassID {
    PassID(hexadecimal([UInt8](repeating: byte, count: PassID.byteCount)))!
  }

  private struct Fields: Encodable {
    var format = 1
    var id = pass(0xC0).description
    var name = "web"
    var chunkSize = ModelDisk.chunkSize
    var fingerprint = "xxh3-128"
    var fingerprintSecret = hexadecimal(secret.bytes)
    var created = GoldenInputs.created
    var disks = [
      ["name": "os", "source": "/dev/vg/os"], ["name": "big", "source": "/srv/big.raw"],
    ]
    var defaultChunkSize = 65_536
  }

  static func collection() throws -> CollectionRecord {
    try Document.decode(CollectionRecord.self, Document.encode(Fields()), name: "collection.json")
  }

  static func configuration() throws -> Repository.Configuration {
    try Document.decode(
      Repository.Configuration.self, Document.encode(Fields()), name: "config.json")
  }

  static func point() throws -> RestorePoint {
    let disk = DiskRestorePoint(
      name: "os", source: "/dev/vg/os", identity: "serial \"7\"\nÄ", size: 20_480,
      logicalSectorSize: 512,
      changeSource: .scan, newChainReason: nil, changedChunks: 3, clearedChunks: 1,
      changedBytes: 8192,
      storedBytes: 4321, readBytes: 20_480,
      layers: [pass(1).object(0).description, pass(2).object(0).description])
    return RestorePoint(
      id: pass(2).description, collection: try collection(), sequence: 2,
      parent: pass(1).description,
      created: created, finished: Timestamp(nanoseconds: created.nanoseconds + 1_500_000_000),
      consistency: .fileSystemConsistent, consistencyReasons: ["no hooks", "a/b"],
      freezeWindowMilliseconds: 12.5, disks: [disk], writer: "strobe 0.1.0")
  }

  /// The points of the golden repository: each with its disks and whether it begins with keyframes.
  static func disks() -> [(disks: [(name: String, disk: ModelDisk)], keyframe: Bool)] {
    var os = ModelDisk(size: 10 * 4096 + 512, [0: 1, 1: 2, 4: 4, 9: 6, 10: 3])
    var big = ModelDisk(size: 5000 * 4096, [0: 8, 63: 10, 64: 12, 4095: 14, 4096: 16, 4999: 18])
    var points = [(disks: [("os", os), ("big", big)], keyframe: false)]
    os.set(1, nil)
    os.set(2, 20)
    os.set(4, 5)
    points.append(([("os", os), ("big", big)], false))
    // Grown: the short last chunk becomes a whole one.
    os.resize(to: 14 * 4096 + 1024)
    os.set(14, 22)
    big.set(4096, nil)
    points.append(([("os", os), ("big", big)], false))
    // Shrunk within a chunk, and grown again: what was lost doesn't come back.
    os.resize(to: 6 * 4096 + 1536)
    points.append(([("os", os)], false))
    os.resize(to: 12 * 4096)
    os.set(11, 24)
    points.append(([("os", os)], false))
    os.set(0, 26)
    points.append(([("os", os)], true))
    os.set(2, nil)
    points.append(([("os", os), ("big", big)], false))
    return points
  }

  /// Fills the repository with the golden points.
  static func fill(_ repository: Repository) throws -> TestCollection {
    var collection = try TestCollection(repository, collection())
    for (index, (disks, keyframe)) in disks().enumerated() {
      try collection.add(disks, pass: pass(UInt8(index + 1)), keyframe: keyframe, created: created)
    }
    return collection
  }

  /// A record with raw content and one with an LZ4 block that was made by hand.
  static func records() -> [UInt8] {
    var generator = SeededGenerator(seed: 99)
    let raw = generator.bytes(512)
    let run: [UInt8] =
      [0x1F, 0x41, 1, 0] + [UInt8](repeating: 255, count: 15) + [
        0xF6, 0x50, 0x41, 0x41, 0x41, 0x41, 0x41,
      ]
    let plain = [UInt8](repeating: 0x41, count: 4096)
    return record(.raw, raw, of: raw) + record(.lz4, run, of: plain)
  }

  private static func record(_ encoding: ChunkEncoding, _ stored: [UInt8], of content: [UInt8])
    -> [UInt8]
  {
    var bytes = [UInt8](repeating: 0xEE, count: SegmentFormat.recordHeaderSize)
    let fingerprint = unsafe content.withUnsafeBytes { unsafe secret.fingerprint(of: $0) }
    unsafe bytes.withUnsafeMutableBytes {
      unsafe ChunkRecord(
        encoding: encoding, storedLength: stored.count, contentLength: content.count,
        fingerprint: fingerprint
      ).store(at: $0.baseAddress!)
    }
    return bytes + stored
  }

  /// Two groups with stored and cleared chunks, the last one of a short word.
  static func maps() -> [(group: Int, map: GroupMap)] {
    let first = GroupMap()
    first.set(
      0, Fingerprint(low: 0x0102_0304_0506_0708, high: 9),
      ChunkLocation(segment: 1, length: 100, offset: 64))
    first.set(
      65, Fingerprint(low: 10, high: 11), ChunkLocation(segment: 0, length: 4144, offset: 1 << 40))
    first.clear(word: 0, bits: 0b110)
    first.clear(word: 63, bits: 1 << 63)
    let second = GroupMap()
    second.set(
      903, Fingerprint(low: 1, high: 0), ChunkLocation(segment: 0, length: 49, offset: 164))
    return [(0, first), (1, second)]
  }
}
