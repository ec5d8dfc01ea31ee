import ChangeDetection
import ChunkCodec
import Platform

@testable import SnapshotRepository

extension FuzzedParser {
  /// A segment's header, then one record at byte 64. The upper bits of the control byte choose how long the
  /// chunk is that the layer expects.
  static let segment = FuzzedParser("segment") { input in
    var bytes = input.bytes
    guard bytes.count > SegmentFormat.headerSize + SegmentFormat.recordHeaderSize,
      let id = ObjectID(Array(bytes[16..<32]))
    else { return }
    let start = SegmentFormat.headerSize
    let length = bytes.count - start
    var expected = Int(bytes.littleEndian(at: start + 12, as: UInt32.self)) % (1 << 17)
    if input.control & 2 != 0 { expected = Int(input.control >> 2) * 512 }
    if input.repairsChecksums {
      bytes.setChecksum(of: 0..<56, at: 56)
      bytes.setFingerprint(ofRecordAt: start, length: expected)
    }
    let store = MemoryStore([id.segmentName: bytes])
    let reader = ChunkReader(store, secret, segments: [id])
    guard let object = try? reader.segment(0) else { return }
    var record = [UInt8](repeating: 0, count: length)
    // As long as the location says, which is checked against the chunk size before.
    guard length <= SegmentFormat.recordHeaderSize + expected else { return }
    var content = [UInt8](repeating: 0xA5, count: expected)
    let fingerprint = record.withReadBytes(of: object, at: start)
    let location = ChunkLocation(segment: 0, length: UInt32(length), offset: UInt64(start))
    let isRead: Bool =
      (try? unsafe record.withBytes { (record) throws(StrobeError) in
        try unsafe content.withMutableBytes { (content) throws(StrobeError) in
          try unsafe reader.decode(record, at: location, fingerprint: fingerprint, into: content)
        }
      }) != nil
    if isRead { roundTrip(content, fingerprint, reader) }
  }

  static let secret = FingerprintSecret([UInt8](0..<192))!

  /// Encodes content as a pass does, and reads it again.
  private static func roundTrip(
    _ content: [UInt8], _ fingerprint: Fingerprint, _ reader: ChunkReader
  ) {
    guard !content.isEmpty else { return }
    var record = [UInt8](repeating: 0, count: SegmentFormat.recordHeaderSize + content.count)
    let encoder = ChunkEncoder()
    let count = unsafe record.withUnsafeMutableBytes { record in
      unsafe content.withUnsafeBytes { content in
        let body = unsafe record.baseAddress! + SegmentFormat.recordHeaderSize
        let (encoding, count) = unsafe encoder.encode(content, to: body)
        unsafe ChunkRecord(
          encoding: encoding, storedLength: count, contentLength: content.count,
          fingerprint: fingerprint
        ).store(at: record.baseAddress!)
        return count
      }
    }
    record.removeLast(content.count - count)
    var again = [UInt8](repeating: 0, count: content.count)
    let location = ChunkLocation(segment: 0, length: UInt32(record.count), offset: 64)
    let isRead: Bool =
      (try? unsafe record.withBytes { (record) throws(StrobeError) in
        try unsafe again.withMutableBytes { (content) throws(StrobeError) in
          try unsafe reader.decode(record, at: location, fingerprint: fingerprint, into: content)
        }
      }) != nil
    require(isRead && again == content, "a chunk reads back")
  }
}

extension [UInt8] {
  /// Fills the array from an object.
  ///
  /// - Returns: the fingerprint that stands in the record.
  fileprivate mutating func withReadBytes(
    of object: any ObjectReader, at offset: Int
  ) -> Fingerprint {
    try? unsafe withMutableBytes { (bytes) throws(StrobeError) in
      try unsafe object.read(at: offset, into: bytes)
    }
    return unsafe withUnsafeBytes { unsafe Fingerprint(at: $0.baseAddress! + 16) }
  }

  /// Makes the fingerprint of a record that of the content that it decodes to, if it does.
  fileprivate mutating func setFingerprint(ofRecordAt start: Int, length: Int) {
    var content = [UInt8](repeating: 0, count: length)
    let isDecoded = unsafe withUnsafeBytes { bytes in
      guard let record = unsafe ChunkRecord(at: bytes.baseAddress! + start) else { return false }
      let stored = unsafe UnsafeRawBufferPointer(
        rebasing: bytes[(start + SegmentFormat.recordHeaderSize)...])
      return unsafe content.withUnsafeMutableBytes {
        unsafe decodeChunk(stored, encoding: record.encoding, into: $0)
      }
    }
    guard isDecoded else { return }
    let fingerprint = unsafe content.withUnsafeBytes {
      unsafe FuzzedParser.secret.fingerprint(of: $0)
    }
    set(fingerprint.low, at: start + 16)
    set(fingerprint.high, at: start + 24)
  }
}
