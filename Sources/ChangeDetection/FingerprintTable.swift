import CLinux
import Glibc
package import Platform

// The head table: the fingerprints of the newest point, in chunk order, in a file that may be deleted
// at any time.
//
//   0        header, 4,096 bytes (see `header`)
//   4096     a checksum for each group: 8 bytes; 0 = all its chunks are zeros, its block is not stored
//   ...      at the next multiple of 4,096: a block for each group, 4,096 fingerprints of 16 bytes
//
// Invariants:
// - The header is marked invalid, durably, before a block of a valid table changes, and valid again,
//   durably, after all blocks are. A crash in between leaves a table that nobody believes.
// - A block counts only with its checksum: a lost page reads as zeros, which would mean "chunk of
//   zeros" and hide a change.

/// A table of fingerprints in a file, for one layer's state of one disk.
package final class FingerprintTable: @unchecked Sendable {
  // Sendable: reading is positional; writing happens after the workers have ended.
  package static let blockSize = ChunkGeometry.chunksPerGroup * Fingerprint.byteCount
  private static let magic: [UInt8] = Array("STRBHEAD".utf8)
  private static let headerSize = 4096

  package let geometry: ChunkGeometry
  private let file: FileDescriptor
  private var checksums: [UInt64]

  private init(_ file: consuming FileDescriptor, _ geometry: ChunkGeometry, _ checksums: [UInt64]) {
    self.file = file
    self.geometry = geometry
    self.checksums = checksums
  }

  /// Opens the table at `path` if it is valid and describes the state after `layer`.
  ///
  /// - Returns: the table, or why there is none that can be believed.
  package static func open(
    _ path: String, layer: [UInt8], geometry: ChunkGeometry
  ) -> (table: FingerprintTable?, reason: String) {
    guard let file = try? FileDescriptor(opening: path, O_RDWR) else { return (nil, "missing") }
    // Before there is room for what `geometry` asks for: its disk may be as large as a document says.
    guard let size = try? file.facts().size, size >= UInt64(headerSize + geometry.groupCount * 8)
    else { return (nil, "damaged") }
    var found = [UInt8](repeating: 0, count: headerSize)
    var list = [UInt8](repeating: 0, count: geometry.groupCount * 8)
    guard
      (try? unsafe found.withMutableBytes { (bytes) throws(StrobeError) in
        try unsafe file.read(at: 0, into: bytes)
      }) == headerSize,
      (try? unsafe list.withMutableBytes { (bytes) throws(StrobeError) in
        try unsafe file.read(at: headerSize, into: bytes)
      }) == list.count
    else { return (nil, "damaged") }
    let expected = header(layer: layer, geometry: geometry, valid: true, checksums: list)
    if found == expected {
      let checksums = (0..<geometry.groupCount).map {
        list.littleEndian(at: $0 * 8, as: UInt64.self)
      }
      return (FingerprintTable(file, geometry, checksums), "valid")
    }
    guard Array(found[0..<8]) == magic else { return (nil, "damaged") }
    if found.littleEndian(at: 12, as: UInt32.self) == 0 {
      return (nil, "left invalid by an interrupted update")
    }
    return (nil, Array(found[16..<32]) == layer ? "damaged" : "of another restore point")
  }

  /// Makes a table of zeros that is not valid yet.
  package static func create(_ path: String, geometry: ChunkGeometry) throws(StrobeError)
    -> FingerprintTable
  {
    let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_TRUNC)
    let checksums = [UInt64](repeating: 0, count: geometry.groupCount)
    let table = FingerprintTable(file, geometry, checksums)
    try table.invalidate()
    return table
  }

  private static func header(
    layer: [UInt8], geometry: ChunkGeometry, valid: Bool, checksums: [UInt8]
  ) -> [UInt8] {
    precondition(layer.count == 16)
    var header = magic
    header.append(littleEndian: UInt32(1))
    header.append(littleEndian: UInt32(valid ? 1 : 0))
    header += layer
    header.append(littleEndian: UInt64(geometry.diskSize))
    header.append(littleEndian: UInt64(geometry.chunkSize))
    header.append(littleEndian: checksum(checksums))
    header.append(littleEndian: checksum(header))
    return header + [UInt8](repeating: 0, count: headerSize - header.count)
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt64 {
    unsafe bytes.withUnsafeBufferPointer { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
  }

  private var firstBlock: Int {
    (Self.headerSize + geometry.groupCount * 8 + 4095) & ~4095
  }

  /// Reads the fingerprints of a group into `block`, `blockSize` bytes.
  ///
  /// - Returns: false when all of them are zero; `block` is zeroed then.
  package func read(
    group: Int, into block: UnsafeMutableRawBufferPointer
  ) throws(StrobeError) -> Bool {
    precondition(block.count == Self.blockSize)
    guard checksums[group] != 0 else {
      unsafe memset(block.baseAddress!, 0, block.count)
      return false
    }
    let offset = firstBlock + group * Self.blockSize
    let count = try unsafe file.read(at: offset, into: block)
    let found = unsafe Self.mark(UnsafeRawBufferPointer(block))
    guard count == Self.blockSize, found == checksums[group] else {
      throw .damaged(
        "\(file.path) group \(group)", expected: "checksum \(checksums[group])", found: "\(found)")
    }
    return true
  }

  private static func mark(_ block: UnsafeRawBufferPointer) -> UInt64 {
    unsafe max(clinux_xxh3_64(block.baseAddress, block.count), 1)
  }

  /// Marks the table as not to be believed, durably.
  package func invalidate() throws(StrobeError) {
    try writeHeader(layer: [UInt8](repeating: 0, count: 16), valid: false)
    try file.synchronize()
  }

  /// Replaces the fingerprints of a group; the table must be marked invalid.
  package func write(group: Int, _ block: UnsafeRawBufferPointer) throws(StrobeError) {
    precondition(block.count == Self.blockSize)
    if unsafe isZero(block) {
      checksums[group] = 0
      return
    }
    try unsafe file.write(block, at: firstBlock + group * Self.blockSize)
    unsafe checksums[group] = Self.mark(block)
  }

  /// Makes the table describe the state after `layer`, durably.
  package func validate(layer: [UInt8]) throws(StrobeError) {
    try file.synchronize()
    try writeHeader(layer: layer, valid: true)
    try file.synchronize()
  }

  private func writeHeader(layer: [UInt8], valid: Bool) throws(StrobeError) {
    var list: [UInt8] = []
    list.reserveCapacity(checksums.count * 8)
    for checksum in checksums { list.append(littleEndian: checksum) }
    let header = Self.header(layer: layer, geometry: geometry, valid: valid, checksums: list)
    try unsafe (header + list).withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
  }
}
