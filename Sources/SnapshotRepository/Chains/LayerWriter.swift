import ChangeDetection
package import Platform

/// Writes a layer front to back: groups in rising order, then its tables.
///
/// Memory: a buffer of about 1 MiB and 16 bytes for each group and segment.
package final class LayerWriter {
  private let header: LayerHeader
  private let writer: any ObjectWriter
  private var buffer: [UInt8]
  private var flushed = 0
  private var directory: [UInt8] = []
  private var lastGroup = -1
  private var footer = LayerFooter()

  package convenience init(
    _ store: any ObjectStore, _ header: LayerHeader
  ) throws(StrobeError) {
    self.init(try store.create(header.id.layerName), header)
  }

  /// A layer whose bytes go to `writer`.
  package init(_ writer: any ObjectWriter, _ header: LayerHeader) {
    self.header = header
    self.writer = writer
    buffer = header.encoded
  }

  package var changedCount: Int { footer.changedCount }
  package var storedCount: Int { footer.storedCount }

  /// Adds a group; one without a known chunk adds nothing.
  package func append(group: Int, _ map: GroupMap) throws(StrobeError) {
    precondition(group > lastGroup && group < header.geometry.groupCount)
    let changed = map.knownCount
    guard changed > 0 else { return }
    lastGroup = group
    let start = buffer.count
    directory.append(littleEndian: UInt32(group))
    encode(group, map)
    directory.append(littleEndian: UInt32(buffer.count - start))
    directory.append(littleEndian: UInt64(flushed + start))
    footer.groupCount += 1
    footer.changedCount += changed
    footer.storedCount += map.storedCount
    if buffer.count >= 1 << 20 { try flush() }
  }

  private func encode(_ group: Int, _ map: GroupMap) {
    let start = buffer.count
    let words = map.known.indices.filter { map.known[$0] != 0 }
    buffer.append(littleEndian: UInt32(group))
    buffer.append(littleEndian: UInt32(map.storedCount))
    buffer.append(littleEndian: words.reduce(UInt64(0)) { $0 | 1 << UInt64($1) })
    for word in words { buffer.append(littleEndian: map.known[word]) }
    for word in words { buffer.append(littleEndian: map.stored[word]) }
    for word in words {
      forEachBit(of: map.stored[word]) { bit in
        let fingerprint = map.fingerprint(word * 64 + bit)
        buffer.append(littleEndian: fingerprint.low)
        buffer.append(littleEndian: fingerprint.high)
      }
    }
    for word in words {
      forEachBit(of: map.stored[word]) { bit in
        let location = map.location(word * 64 + bit)
        buffer.append(littleEndian: location.segment)
        buffer.append(littleEndian: location.length)
        buffer.append(littleEndian: location.offset)
      }
    }
    let sum = unsafe buffer.withUnsafeBytes {
      unsafe checksum64(UnsafeRawBufferPointer(rebasing: $0[start...]))
    }
    buffer.append(littleEndian: sum)
  }

  private func flush() throws(StrobeError) {
    let writer = writer
    let flushed = flushed
    try unsafe buffer.withBytes { (bytes) throws(StrobeError) in
      try unsafe writer.write(bytes, at: flushed)
    }
    self.flushed += buffer.count
    buffer.removeAll(keepingCapacity: true)
  }

  /// Writes the tables and makes the layer durable.
  ///
  /// - Parameter segments: what the locations' segment numbers count.
  package func finish(segments: [ObjectID]) throws(StrobeError) {
    var tables: [UInt8] = []
    for segment in segments { tables += segment.bytes }
    footer.segmentTableOffset = flushed + buffer.count
    footer.segmentCount = segments.count
    footer.directoryOffset = footer.segmentTableOffset + tables.count
    tables += directory
    footer.tablesChecksum = checksum64(tables)
    buffer += tables
    buffer += footer.encoded
    try flush()
    try writer.finish()
  }
}
