import ChangeDetection
import Glibc
import Platform

@testable import SnapshotRepository

// What a machine keeps beside a repository, and believes only when it is whole.

extension FuzzedParser {
  static let headTable = FuzzedParser("head-table") { input in
    var bytes = input.bytes
    guard bytes.count >= 64 else { return }
    // Of the disk as it is, not as the table says: bounded as a disk's is.
    let size = Int(truncatingIfNeeded: bytes.littleEndian(at: 32, as: UInt64.self)) & 0x3FF_FE00
    let geometry = ChunkGeometry(diskSize: size, chunkSize: 4096 << Int(input.control >> 6))
    let layer = Array(bytes[16..<32])
    if input.repairsChecksums { repairTable(&bytes, geometry) }
    scratch.fill(bytes)
    guard let table = FingerprintTable.open(scratch.path, layer: layer, geometry: geometry).table
    else { return }
    guard let copy = try? FingerprintTable.create(copyScratch.path, geometry: geometry) else {
      fatalError("doesn't hold: a table can be made")
    }
    let block = AlignedBuffer(count: FingerprintTable.blockSize)
    for group in 0..<geometry.groupCount {
      guard let isStored = try? unsafe table.read(group: group, into: block.bytes) else { return }
      require(
        unsafe isStored || isZero(UnsafeRawBufferPointer(block.bytes)), "what isn't stored is zeros"
      )
      let written: Void? = try? unsafe copy.write(group: group, UnsafeRawBufferPointer(block.bytes))
      guard written != nil else { return }
    }
    require((try? copy.validate(layer: layer)) != nil, "a table can be made valid")
    let again = FingerprintTable.open(copyScratch.path, layer: layer, geometry: geometry)
    require(again.table != nil, "a table that was written is believed: \(again.reason)")
  }

  private static let scratch = ScratchFile()
  private static let copyScratch = ScratchFile()

  private static func repairTable(_ bytes: inout [UInt8], _ geometry: ChunkGeometry) {
    let blocks = (4096 + geometry.groupCount * 8 + 4095) & ~4095
    // What an input is too short to say is zeros.
    let size = blocks + geometry.groupCount * FingerprintTable.blockSize
    bytes += [UInt8](repeating: 0, count: max(0, size - bytes.count))
    bytes.set(UInt64(geometry.diskSize), at: 32)
    bytes.set(UInt64(geometry.chunkSize), at: 40)
    for group in 0..<geometry.groupCount {
      let start = blocks + group * FingerprintTable.blockSize
      let end = start + FingerprintTable.blockSize
      guard bytes[4096 + group * 8] & 1 != 0 else { continue }
      bytes.set(max(checksum64(Array(bytes[start..<end])), 1), at: 4096 + group * 8)
    }
    bytes.setChecksum(of: 4096..<(4096 + geometry.groupCount * 8), at: 48)
    bytes.setChecksum(of: 0..<56, at: 56)
  }

  /// All points that the index names are there; none of their documents can be read, so what is listed
  /// comes from the index.
  static let pointIndex = FuzzedParser("point-index") { input in
    var bytes = input.bytes
    if input.repairsChecksums, bytes.count >= 24 {
      bytes.setChecksum(of: 0..<(bytes.count - 8), at: bytes.count - 8)
    }
    var objects: [String: [UInt8]] = [:]
    for offset in stride(from: 16, through: bytes.count - 12, by: PointSummary.rowSize) {
      let id = hexadecimal(bytes[offset..<(offset + PassID.byteCount)])
      objects["collections/web/\(id).json"] = []
    }
    let repository = local.repository(MemoryStore(objects))
    guard local.writeIndex(bytes), let index = try? PointIndex.load(repository, "web") else {
      return
    }
    require(index.points.count + index.unreadable.count == objects.count, "every point is listed")
    for point in index.points {
      var row: [UInt8] = []
      point.append(to: &row)
      require(
        PointSummary(row: row, at: 0, collection: "web") == point, "a row of the index reads back")
      require(
        [point.size, point.changedBytes, point.storedBytes].allSatisfy { $0 >= 0 },
        "no size is below zero")
      show(point)
    }
  }

  private static let local = LocalFolder()

  /// Entries of a pass's scratch file: 32 bytes a chunk, the bitmaps before them.
  static let spool = FuzzedParser("spool") { input in
    let words = ChunkGeometry.wordsPerGroup
    guard input.bytes.count >= words * 16, let spool = local.spool else { return }
    let changed = ChunkBitmap(chunkCount: ChunkGeometry.chunksPerGroup)
    let stored = ChunkBitmap(chunkCount: ChunkGeometry.chunksPerGroup)
    for word in 0..<words {
      changed[word: word] = input.bytes.littleEndian(at: word * 8)
      stored[word: word] = changed[word: word] & input.bytes.littleEndian(at: (words + word) * 8)
    }
    // The whole group, so that nothing stays of the input before.
    let size = ChunkGeometry.chunksPerGroup * PassSpool.entrySize
    var entries = Array(input.bytes.dropFirst(words * 16).prefix(size))
    entries += [UInt8](repeating: 0, count: size - entries.count)
    let isWritten =
      (try? unsafe entries.withBytes { (bytes) throws(StrobeError) in
        try unsafe spool.write(bytes, position: 0)
      }) != nil
    require(isWritten, "entries can be kept")
    let map = GroupMap()
    let memory = AlignedBuffer(count: size)
    let isRead =
      (try? unsafe spool.read(
        group: 0, changed: changed, stored: stored, into: map, scratch: memory.bytes,
        renumber: { $0 })) != nil
    guard isRead else { return }
    for word in 0..<words {
      require(map.known[word] == changed[word: word], "what changed is known")
      require(map.stored[word] == stored[word: word], "what is stored has a place")
    }
  }
}

/// A folder for what a repository keeps locally; removed when the program ends in an orderly way.
private final class LocalFolder: Sendable {
  private let path: String
  private let configuration: Repository.Configuration
  let spool: PassSpool?

  init() {
    // `scripts/fuzz` gives a folder that it removes also when a parser fails.
    let place = unsafe getenv("STROBE_FUZZ_FOLDER").map { unsafe String(cString: $0) } ?? "/dev/shm"
    var template = Array("\(place)/strobe-test-fuzzing-XXXXXX".utf8CString)
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) }
    path = unsafe made.map { unsafe String(cString: $0) } ?? "/tmp"
    configuration = Repository.Configuration(
      format: 1, id: PassID().description, created: .now, defaultChunkSize: 65536,
      defaultFingerprint: nil)
    // Without a name, as it is fed again and again.
    spool = try? PassSpool(creating: path + "/spool")
    unsafe unlink(path + "/spool")
    try? makeDirectories(path + "/cache/web")
    unsafe LocalFolder.removed = path
    atexit {
      unsafe unlink(LocalFolder.removed + "/cache/web/points.index")
      for folder in ["/cache/web", "/cache", ""] { unsafe rmdir(LocalFolder.removed + folder) }
    }
  }

  nonisolated(unsafe) private static var removed = ""

  func repository(_ store: MemoryStore) -> Repository {
    Repository(store: store, configuration: configuration, localFolder: path)
  }

  func writeIndex(_ bytes: [UInt8]) -> Bool {
    let file = try? FileDescriptor(
      opening: path + "/cache/web/points.index", O_WRONLY | O_CREAT | O_TRUNC)
    guard let file else { return false }
    let written: Void? = try? unsafe bytes.withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
    return written != nil
  }
}
