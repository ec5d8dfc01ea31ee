import ChangeDetection
import Platform

/// The encoded bytes of one group of a layer, checked.
@unsafe struct LayerGroup {
  private let bytes: UnsafeRawPointer
  private let mask: UInt64
  private let wordCount: Int
  private let storedCount: Int
  private let header: LayerHeader
  private let segmentCount: Int
  private let group: Int

  init(
    _ buffer: UnsafeRawBufferPointer, group: Int, of header: LayerHeader, segmentCount: Int
  ) throws(StrobeError) {
    unsafe bytes = buffer.baseAddress!
    unsafe self.header = header
    unsafe self.segmentCount = segmentCount
    unsafe self.group = group
    let body = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<(buffer.count - 8)])
    let sum = unsafe checksum64(body)
    let found: UInt64 = unsafe bytes.littleEndian(at: body.count)
    guard sum == found else {
      throw .damaged(
        "\(header.id.layerName) group \(group)", expected: "checksum \(hexadecimal(sum))",
        found: hexadecimal(found))
    }
    unsafe mask = bytes.littleEndian(at: 8)
    unsafe wordCount = mask.nonzeroBitCount
    unsafe storedCount = Int(bytes.littleEndian(at: 4, as: UInt32.self))
    let expected =
      unsafe LayerFormat.groupHeaderSize + wordCount * 16
      + storedCount * (Fingerprint.byteCount + ChunkLocation.byteCount) + 8
    let index = unsafe Int(bytes.littleEndian(at: 0, as: UInt32.self))
    guard index == group, expected == buffer.count, unsafe mask != 0 else {
      throw .damaged(
        "\(header.id.layerName) group \(group)", expected: "\(expected) bytes of group \(group)",
        found: "\(buffer.count) bytes of group \(index)")
    }
    try unsafe checkBitmaps()
  }

  private func changed(_ rank: Int) -> UInt64 {
    unsafe bytes.littleEndian(at: LayerFormat.groupHeaderSize + rank * 8)
  }

  private func stored(_ rank: Int) -> UInt64 {
    unsafe bytes.littleEndian(at: LayerFormat.groupHeaderSize + (wordCount + rank) * 8)
  }

  private func checkBitmaps() throws(StrobeError) {
    var count = 0
    let positions = unsafe header.geometry.positions(ofGroup: group).count
    var rest = unsafe mask
    for rank in 0..<(unsafe wordCount) {
      let word = rest.trailingZeroBitCount
      rest &= rest - 1
      let beyond = ~ChangeDetection.mask(from: 0, to: max(0, min(64, positions - word * 64)))
      guard unsafe changed(rank) != 0, unsafe stored(rank) & ~changed(rank) == 0,
        unsafe changed(rank) & beyond == 0
      else { throw unsafe nonsense("a bitmap") }
      count += unsafe stored(rank).nonzeroBitCount
    }
    guard unsafe count == storedCount else { throw unsafe nonsense("\(count) chunks") }
  }

  private func nonsense(_ found: String) -> StrobeError {
    unsafe .damaged(
      "\(header.id.layerName) group \(group)", expected: "a group that makes sense", found: found)
  }

  /// See ``LayerReader/overlay(group:rank:limit:segmentBase:onto:scratch:)``.
  func overlay(limit: Int, segmentBase: Int, onto map: GroupMap) throws(StrobeError) {
    let fingerprints = unsafe bytes + LayerFormat.groupHeaderSize + wordCount * 16
    let locations = unsafe fingerprints + storedCount * Fingerprint.byteCount
    var before = 0
    var rest = unsafe mask
    for rank in 0..<(unsafe wordCount) {
      let word = rest.trailingZeroBitCount
      rest &= rest - 1
      let visible = ChangeDetection.mask(from: 0, to: max(0, min(64, limit - word * 64)))
      let has = unsafe stored(rank)
      let wanted = unsafe changed(rank) & ~map.known[word] & visible
      try forEachBit(of: wanted & has) { (bit) throws(StrobeError) in
        let place = before + (has & (1 << UInt64(bit) &- 1)).nonzeroBitCount
        let location = unsafe ChunkLocation(at: locations + place * ChunkLocation.byteCount)
        guard unsafe location.segment < segmentCount,
          location.length > SegmentFormat.recordHeaderSize,
          unsafe Int(location.length) <= SegmentFormat.recordHeaderSize + header.geometry.chunkSize,
          location.offset <= UInt64(Int.max) >> 8
        else { throw unsafe nonsense("a location outside its segments") }
        map.set(
          word * 64 + bit, unsafe Fingerprint(at: fingerprints + place * Fingerprint.byteCount),
          ChunkLocation(
            segment: location.segment + UInt32(segmentBase), length: location.length,
            offset: location.offset))
      }
      map.clear(word: word, bits: wanted & ~has)
      before += has.nonzeroBitCount
    }
  }
}
