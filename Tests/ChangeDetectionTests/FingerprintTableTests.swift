import ChangeDetection
import Glibc
import Platform
import TestSupport
import Testing

/// Tables of 4,096 + 4,096 bytes of header and list, then a block of 64 KiB for each group.
private let firstBlock = 8192
private let blockSize = FingerprintTable.blockSize

@Suite("Fingerprint tables")
struct FingerprintTableTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let layer: [UInt8] = (1...16).map { UInt8($0) }
  /// Two groups and a bit of a third.
  private let geometry = ChunkGeometry(diskSize: (8192 + 5) * 4096 + 512, chunkSize: 4096)

  private var path: String { folder.file("table") }

  private func block(_ seed: UInt64) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    return generator.bytes(blockSize)
  }

  private let zeros = [UInt8](repeating: 0, count: blockSize)

  private func write(_ table: FingerprintTable, _ group: Int, _ block: [UInt8]) throws {
    try unsafe block.withBytes { (bytes) throws(StrobeError) in
      try unsafe table.write(group: group, bytes)
    }
  }

  private func read(_ table: FingerprintTable, _ group: Int) throws -> (
    stored: Bool, block: [UInt8]
  ) {
    // Full of something else, so that what isn't filled shows.
    var block = [UInt8](repeating: 0x77, count: blockSize)
    let stored = try unsafe block.withMutableBytes { (bytes) throws(StrobeError) in
      try unsafe table.read(group: group, into: bytes)
    }
    return (stored, block)
  }

  /// A valid table with the given blocks.
  private func make(_ blocks: [[UInt8]]) throws {
    let table = try FingerprintTable.create(path, geometry: geometry)
    for (group, block) in blocks.enumerated() { try write(table, group, block) }
    try table.validate(layer: layer)
  }

  private func open() -> (table: FingerprintTable?, reason: String) {
    FingerprintTable.open(path, layer: layer, geometry: geometry)
  }

  @Test("What was written is read again by whoever opens it")
  func roundTrip() throws {
    let blocks = [block(1), zeros, block(3)]
    try make(blocks)
    let (opened, reason) = open()
    #expect(reason == "valid")
    let table = try #require(opened)
    for (group, block) in blocks.enumerated() {
      let found = try read(table, group)
      #expect(found.stored == (group != 1))
      #expect(found.block == block)
    }
  }

  @Test("A block that became zeros, and one that ceased to be, read as they are now")
  func update() throws {
    try make([block(1), zeros, block(3)])
    let table = try #require(open().table)
    try table.invalidate()
    try write(table, 0, zeros)
    try write(table, 1, block(4))
    try table.validate(layer: layer)
    let again = try #require(open().table)
    #expect(try read(again, 0).block == zeros)
    #expect(try read(again, 1).block == block(4))
    #expect(try read(again, 2).block == block(3))
  }

  @Test("A table that isn't there is missing")
  func missing() {
    #expect(open().table == nil)
    #expect(open().reason == "missing")
  }

  @Test("A table of another layer is not believed")
  func otherLayer() throws {
    try make([block(1)])
    let other = FingerprintTable.open(
      path, layer: [UInt8](repeating: 9, count: 16), geometry: geometry)
    #expect(other.table == nil)
    #expect(other.reason == "of another restore point")
  }

  @Test(
    "A table of another disk size or chunk size is not believed",
    arguments: [
      ChunkGeometry(diskSize: (8192 + 5) * 4096 + 1024, chunkSize: 4096),
      ChunkGeometry(diskSize: (8192 + 5) * 4096, chunkSize: 4096),
      ChunkGeometry(diskSize: (8192 + 5) * 4096 + 512, chunkSize: 8192),
      ChunkGeometry(diskSize: 4096, chunkSize: 4096),
      ChunkGeometry(diskSize: 1 << 40, chunkSize: 4096),
    ])
  func otherGeometry(other: ChunkGeometry) throws {
    try make([block(1), block(2), block(3)])
    #expect(FingerprintTable.open(path, layer: layer, geometry: other).table == nil)
  }

  @Test("A new table is not valid before it is declared so")
  func notYetValid() throws {
    let table = try FingerprintTable.create(path, geometry: geometry)
    #expect(open().reason == "left invalid by an interrupted update")
    try write(table, 0, block(1))
    #expect(open().table == nil)
  }

  @Test("An update that was interrupted leaves a table that nobody believes", arguments: 0...3)
  func interrupted(blocksWritten: Int) throws {
    try make([block(1), block(2), block(3)])
    do {
      let table = try #require(open().table)
      try table.invalidate()
      for group in 0..<blocksWritten { try write(table, group, block(10 + UInt64(group))) }
    }
    let (table, reason) = open()
    #expect(table == nil)
    #expect(reason == "left invalid by an interrupted update")
  }

  @Test("A table for a disk beyond any memory is damaged, and no memory is taken for it")
  func beyondMemory() throws {
    try FingerprintTable.create(path, geometry: geometry).validate(layer: layer)
    let huge = ChunkGeometry(diskSize: 1 << 55 - 512, chunkSize: 4096)
    #expect(FingerprintTable.open(path, layer: layer, geometry: huge).reason == "damaged")
  }

  @Test("A disk of no chunks has a table too")
  func noChunks() throws {
    let none = ChunkGeometry(diskSize: 0, chunkSize: 4096)
    try FingerprintTable.create(path, geometry: none).validate(layer: layer)
    #expect(FingerprintTable.open(path, layer: layer, geometry: none).reason == "valid")
  }

  // MARK: Damage

  /// How a damaged table reads: nil when it is not believed or the damage is noticed.
  private func believed(_ group: Int) throws -> [UInt8]? {
    guard let table = open().table else { return nil }
    return try noticing(table, group)
  }

  private func noticing(_ table: FingerprintTable, _ group: Int) throws -> [UInt8]? {
    do {
      return try read(table, group).block
    } catch let error as StrobeError where error.isDamage {
      return nil
    }
  }

  private func flip(_ file: borrowing FileDescriptor, _ offset: Int, _ byte: UInt8) throws {
    try unsafe [byte].withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: offset)
    }
  }

  @Test("No flipped byte of header or list makes a block read differently without notice")
  func headerFlips() throws {
    let blocks = [block(1), zeros, block(3)]
    try make(blocks)
    let content = try readBytes(path, count: firstBlock)
    let file = try FileDescriptor(opening: path, O_RDWR)
    var wrong: [Int] = []
    for offset in 0..<firstBlock {
      try flip(file, offset, content[offset] ^ UInt8(1) << UInt8(offset % 8))
      if let table = open().table {
        for group in 0..<3 {
          if let found = try noticing(table, group), found != blocks[group] { wrong.append(offset) }
        }
      }
      try flip(file, offset, content[offset])
    }
    #expect(wrong.isEmpty)
    #expect(open().reason == "valid")
  }

  @Test("Every flipped byte of a block is noticed")
  func blockFlips() throws {
    let content = block(1)
    try make([content, zeros, block(3)])
    let table = try #require(open().table)
    let file = try FileDescriptor(opening: path, O_RDWR)
    var wrong: [Int] = []
    for offset in 0..<blockSize {
      try flip(file, firstBlock + offset, content[offset] ^ 1 << UInt8(offset % 8))
      if try noticing(table, 0) != nil { wrong.append(offset) }
      try flip(file, firstBlock + offset, content[offset])
    }
    #expect(wrong.isEmpty)
    #expect(try read(table, 0).block == content)
  }

  @Test("A block replaced by zeros, as a lost page reads, is noticed", arguments: [0, 2])
  func zeroed(group: Int) throws {
    try make([block(1), zeros, block(3)])
    try writeBytes(zeros, to: path, at: firstBlock + group * blockSize)
    let table = try #require(open().table)
    let error = #expect(throws: StrobeError.self) { try read(table, group) }
    #expect(error?.isDamage == true)
    #expect(error?.message.contains("group \(group)") == true)
  }

  @Test("Two blocks that changed places are noticed")
  func swapped() throws {
    try make([block(1), zeros, block(3)])
    try writeBytes(block(3), to: path, at: firstBlock)
    try writeBytes(block(1), to: path, at: firstBlock + 2 * blockSize)
    #expect(try believed(0) == nil)
    #expect(try believed(2) == nil)
  }

  @Test("A table that was cut off anywhere is not believed or notices it")
  func truncated() throws {
    let blocks = [block(1), zeros, block(3)]
    try make(blocks)
    let file = try FileDescriptor(opening: path, O_RDWR)
    let size = try readFile(path).count
    #expect(size == firstBlock + 3 * blockSize)
    let lengths =
      [size - 1, size - blockSize, firstBlock + blockSize - 1, firstBlock + 1, firstBlock]
      + Array(4090...4140) + [1, 0]
    for length in lengths {
      try file.truncate(to: length)
      for group in 0..<3 {
        let found = try believed(group)
        #expect(found == nil || found == blocks[group], "cut to \(length), group \(group)")
      }
      #expect(try believed(2) == nil, "cut to \(length)")
    }
    #expect(open().reason == "damaged")
  }

  @Test("Bytes that are no table at all are damaged, not a crash")
  func nonsense() throws {
    for seed in 0..<20 as Range<UInt64> {
      var generator = SeededGenerator(seed: seed)
      try writeBytes(generator.bytes(20_000), to: path)
      #expect(open().reason == "damaged")
    }
  }
}
