package import ChangeDetection
import ChunkCodec
import Glibc
package import Platform
import Synchronization

/// Reads chunks of a chain's segments and checks each against its fingerprint.
package final class ChunkReader: Sendable {
  /// Segments kept open: half of what the process may open, for there may be two readers.
  private static let openLimit: Int = {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return max(32, min(4096, Int(clamping: limit.rlim_cur) / 2 - 100))
  }()

  private struct Open {
    var readers: [UInt32: any ObjectReader] = [:]
    var order: [UInt32] = []
  }

  private let store: any ObjectStore
  private let secret: FingerprintSecret
  private let segments: [ObjectID]
  private let open = Mutex(Open())
  private let repairs = Mutex<[UInt32: Repairs?]>([:])

  package init(_ store: any ObjectStore, _ secret: FingerprintSecret, segments: [ObjectID]) {
    self.store = store
    self.secret = secret
    self.segments = segments
  }

  /// The segment with a location's number; its header is checked when it is opened.
  package func segment(_ number: UInt32) throws(StrobeError) -> any ObjectReader {
    if let found = open.withLock({ $0.readers[number] }) { return found }
    let id = segments[Int(number)]
    let reader = try store.open(id.segmentName)
    var header = [UInt8](repeating: 0, count: SegmentFormat.headerSize)
    try unsafe header.withMutableBytes { (bytes) throws(StrobeError) in
      try unsafe reader.read(at: 0, into: bytes)
    }
    try SegmentFormat.check(header: header, of: id)
    open.withLock { open in
      if open.readers.updateValue(reader, forKey: number) == nil { open.order.append(number) }
      if open.order.count > Self.openLimit { open.readers[open.order.removeFirst()] = nil }
    }
    return reader
  }

  package func name(ofSegment number: UInt32) -> String { segments[Int(number)].segmentName }

  /// Decodes one record into `content` and checks it.
  ///
  /// - Parameters:
  ///   - record: the record's bytes, header included, as the location names them.
  ///   - content: as many bytes as the chunk has; holds the chunk afterwards.
  /// - Throws: `damaged`, which names segment, offset, expected and found.
  package func decode(
    _ record: UnsafeRawBufferPointer, at location: ChunkLocation, fingerprint: Fingerprint,
    into content: UnsafeMutableRawBufferPointer
  ) throws(StrobeError) {
    guard let header = unsafe ChunkRecord(at: record.baseAddress!),
      header.fingerprint == fingerprint, header.contentLength == content.count,
      header.storedLength == record.count - SegmentFormat.recordHeaderSize
    else {
      throw damaged(
        location, expected: "the record of chunk \(fingerprint)", found: "another header")
    }
    let stored = unsafe UnsafeRawBufferPointer(rebasing: record[SegmentFormat.recordHeaderSize...])
    guard unsafe decodeChunk(stored, encoding: header.encoding, into: content) else {
      throw damaged(
        location, expected: "\(content.count) bytes of content",
        found: "bytes that don't decompress")
    }
    let found = unsafe secret.fingerprint(of: UnsafeRawBufferPointer(content))
    guard found == fingerprint else {
      throw damaged(location, expected: "fingerprint \(fingerprint)", found: "\(found)")
    }
  }

  /// Reads the record that was stored in the place of one that can't be read.
  ///
  /// - Parameter content: as many bytes as the chunk has; holds the chunk afterwards.
  /// - Returns: false when there is none, or it isn't good either.
  package func readReplacement(
    of location: ChunkLocation, fingerprint: Fingerprint,
    into content: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard let found = repairs(ofSegment: location.segment)?.replacement(at: location.offset) else {
      return false
    }
    do throws(StrobeError) {
      let reader = try store.open(found.segment.segmentName)
      let record = AlignedBuffer(count: found.length)
      try unsafe reader.read(at: found.offset, into: record.bytes)
      try unsafe decode(
        UnsafeRawBufferPointer(record.bytes), at: location, fingerprint: fingerprint, into: content)
      return true
    } catch {
      return false
    }
  }

  private func repairs(ofSegment number: UInt32) -> Repairs? {
    if let known = repairs.withLock({ $0[number] }) { return known }
    let read = (try? Repairs.read(store, segments[Int(number)])) ?? nil
    repairs.withLock { $0[number] = .some(read) }
    return read
  }

  private func damaged(_ location: ChunkLocation, expected: String, found: String) -> StrobeError {
    .damaged(
      "\(name(ofSegment: location.segment)) at byte \(location.offset)", expected: expected,
      found: found)
  }
}
