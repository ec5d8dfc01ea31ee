package import ChangeDetection
package import ChunkCodec
package import Platform

// A segment: many chunks, one after another. `docs/format.md` has the byte tables.
//
//   +--------+--------+---------+--------+---------+--
//   | header | record | content | record | content | …
//   +--------+--------+---------+--------+---------+--
//     64       48       n         48       n
//
// Invariants:
// - A record is written once, at an offset that no other record shares.
// - A layer names a record only after it is durable.

package enum SegmentFormat {
  package static let magic: [UInt8] = Array("STRBSEGM".utf8)
  package static let version: UInt32 = 1
  package static let headerSize = 64
  package static let recordHeaderSize = 48
  static let recordMagic: UInt32 = 0x4B4E_4843  // "CHNK"

  package static func header(_ id: ObjectID) -> [UInt8] {
    var bytes = magic
    bytes.append(littleEndian: version)
    bytes.append(littleEndian: UInt32(0))
    bytes += id.bytes
    bytes += [UInt8](repeating: 0, count: 24)
    bytes.append(littleEndian: checksum64(bytes))
    return bytes
  }

  /// - Throws: `damaged` unless `bytes` are exactly the header of segment `id`.
  package static func check(header bytes: [UInt8], of id: ObjectID) throws(StrobeError) {
    if bytes.count >= 12, Array(bytes[0..<8]) == magic,
      bytes.littleEndian(at: 8, as: UInt32.self) > version,
      checksum64(Array(bytes[..<56])) == bytes.littleEndian(at: 56)
    {
      throw StrobeError(.newerVersion, "\(id.segmentName) was written by a newer Strobe")
    }
    guard bytes == header(id) else {
      throw .damaged(
        "\(id.segmentName) header", expected: "the header of segment \(id)", found: "other bytes")
    }
  }
}

/// The 48 bytes before a chunk's stored content.
package struct ChunkRecord {
  package let encoding: ChunkEncoding
  /// Bytes that follow the record.
  package let storedLength: Int
  /// Bytes of the chunk itself.
  package let contentLength: Int
  package let fingerprint: Fingerprint

  package init(
    encoding: ChunkEncoding, storedLength: Int, contentLength: Int, fingerprint: Fingerprint
  ) {
    self.encoding = encoding
    self.storedLength = storedLength
    self.contentLength = contentLength
    self.fingerprint = fingerprint
  }

  package func store(at address: UnsafeMutableRawPointer) {
    unsafe address.setLittleEndian(SegmentFormat.recordMagic, at: 0)
    unsafe address.setLittleEndian(UInt32(encoding.rawValue), at: 4)
    unsafe address.setLittleEndian(UInt32(storedLength), at: 8)
    unsafe address.setLittleEndian(UInt32(contentLength), at: 12)
    unsafe fingerprint.store(at: address + 16)
    // Room for the tag of an encrypted chunk.
    unsafe address.setLittleEndian(UInt64(0), at: 32)
    unsafe address.setLittleEndian(UInt64(0), at: 40)
  }

  /// The record at `address`, or nil when a field has a value that no writer gives it.
  package init?(at address: UnsafeRawPointer) {
    guard unsafe address.littleEndian(at: 0, as: UInt32.self) == SegmentFormat.recordMagic,
      let code = UInt8(exactly: unsafe address.littleEndian(at: 4, as: UInt32.self)),
      let encoding = ChunkEncoding(rawValue: code),
      unsafe address.littleEndian(at: 32, as: UInt64.self) == 0,
      unsafe address.littleEndian(at: 40, as: UInt64.self) == 0
    else { return nil }
    self.encoding = encoding
    storedLength = unsafe Int(address.littleEndian(at: 8, as: UInt32.self))
    contentLength = unsafe Int(address.littleEndian(at: 12, as: UInt32.self))
    fingerprint = unsafe Fingerprint(at: address + 16)
  }
}

/// Where a chunk is stored: a record in a segment. On disk 16 bytes: the segment's place in the layer's
/// table (4), the record's length with its header (4), its offset (8).
package struct ChunkLocation: Equatable, Sendable {
  package static let byteCount = 16

  package let segment: UInt32
  /// Bytes of the record, header included.
  package let length: UInt32
  package let offset: UInt64

  @inlinable package init(segment: UInt32, length: UInt32, offset: UInt64) {
    self.segment = segment
    self.length = length
    self.offset = offset
  }

  @inlinable package func renumbered(_ segment: UInt32) -> ChunkLocation {
    ChunkLocation(segment: segment, length: length, offset: offset)
  }

  @inlinable package init(at address: UnsafeRawPointer) {
    unsafe segment = address.littleEndian(at: 0)
    unsafe length = address.littleEndian(at: 4)
    unsafe offset = address.littleEndian(at: 8)
  }

  @inlinable package func store(at address: UnsafeMutableRawPointer) {
    unsafe address.setLittleEndian(segment, at: 0)
    unsafe address.setLittleEndian(length, at: 4)
    unsafe address.setLittleEndian(offset, at: 8)
  }
}
