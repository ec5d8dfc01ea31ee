import ChangeDetection
import Glibc
package import Platform

/// An open layer: its header, footer and tables in memory, its groups read when asked for.
///
/// Nothing that a layer says is believed before its checksum held and its numbers made sense.
package final class LayerReader: Sendable {
  package let header: LayerHeader
  package let footer: LayerFooter
  package let segments: [ObjectID]
  /// Bytes of the whole layer.
  package let size: Int
  private let object: any ObjectReader
  private let directory: [UInt8]

  package init(_ store: any ObjectStore, _ id: ObjectID) throws(StrobeError) {
    object = try store.open(id.layerName)
    size = object.size
    guard size >= LayerFormat.headerSize + LayerFormat.footerSize else {
      throw .damaged(id.layerName, expected: "at least 256 bytes", found: "\(size)")
    }
    header = try LayerHeader(Self.bytes(object, 0, LayerFormat.headerSize), of: id)
    footer = try LayerFooter(
      Self.bytes(object, size - LayerFormat.footerSize, LayerFormat.footerSize), layer: id,
      size: size)
    let tables = try Self.bytes(
      object, footer.segmentTableOffset, size - LayerFormat.footerSize - footer.segmentTableOffset)
    let sum = checksum64(tables)
    guard sum == footer.tablesChecksum else {
      throw .damaged(
        "\(id.layerName) tables", expected: "checksum \(hexadecimal(footer.tablesChecksum))",
        found: hexadecimal(sum))
    }
    let split = footer.segmentCount * LayerFormat.segmentEntrySize
    segments = stride(from: 0, to: split, by: LayerFormat.segmentEntrySize).map {
      ObjectID(Array(tables[$0..<($0 + LayerFormat.segmentEntrySize)]))!
    }
    directory = Array(tables[split...])
    try checkDirectory()
  }

  private static func bytes(
    _ object: any ObjectReader, _ offset: Int, _ count: Int
  ) throws(StrobeError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    try unsafe bytes.withMutableBytes { (buffer) throws(StrobeError) in
      try unsafe object.read(at: offset, into: buffer)
    }
    return bytes
  }

  /// How many groups the layer holds.
  package var storedGroupCount: Int { footer.groupCount }

  /// The index of the `rank`th group that the layer holds.
  package func group(rank: Int) -> Int {
    Int(directory.littleEndian(at: rank * LayerFormat.directoryEntrySize, as: UInt32.self))
  }

  private func extent(rank: Int) -> (offset: Int, length: Int) {
    let entry = rank * LayerFormat.directoryEntrySize
    return (
      Int(truncatingIfNeeded: directory.littleEndian(at: entry + 8, as: UInt64.self)),
      Int(directory.littleEndian(at: entry + 4, as: UInt32.self))
    )
  }

  private func checkDirectory() throws(StrobeError) {
    var end = LayerFormat.headerSize
    var last = -1
    for rank in 0..<footer.groupCount {
      let (offset, length) = extent(rank: rank)
      guard offset == end, length > LayerFormat.groupHeaderSize, length <= LayerFormat.largestGroup,
        group(rank: rank) > last, group(rank: rank) < header.geometry.groupCount
      else {
        throw .damaged(
          "\(header.id.layerName) directory", expected: "groups in order", found: "entry \(rank)")
      }
      last = group(rank: rank)
      end = offset + length
    }
    guard end == footer.segmentTableOffset else {
      throw .damaged(
        "\(header.id.layerName) directory", expected: "\(footer.segmentTableOffset)",
        found: "\(end)")
    }
  }

  /// Where in the directory `group` is, or nil when the layer holds nothing of it.
  package func rank(ofGroup group: Int) -> Int? {
    var low = 0
    var high = footer.groupCount
    while low < high {
      let middle = (low + high) / 2
      if self.group(rank: middle) < group { low = middle + 1 } else { high = middle }
    }
    return low < footer.groupCount && self.group(rank: low) == group ? low : nil
  }

  /// Adds to `map` what this layer says of the chunks of `group` that `map` doesn't know yet.
  ///
  /// - Parameters:
  ///   - limit: chunks of the group at and beyond it are not visible through this layer.
  ///   - segmentBase: added to every location's segment number.
  ///   - scratch: at least `LayerFormat.largestGroup` bytes.
  package func overlay(
    group: Int, rank: Int, limit: Int, segmentBase: Int, onto map: GroupMap,
    scratch: UnsafeMutableRawBufferPointer
  ) throws(StrobeError) {
    let (offset, length) = extent(rank: rank)
    let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[..<length])
    try unsafe object.read(at: offset, into: bytes)
    let view = try unsafe LayerGroup(
      UnsafeRawBufferPointer(bytes), group: group, of: header, segmentCount: segments.count)
    try unsafe view.overlay(limit: limit, segmentBase: segmentBase, onto: map)
  }

  /// Reads every group and checks it.
  package func checkAllGroups(_ stop: CancellationFlag) throws(StrobeError) {
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for rank in 0..<storedGroupCount {
      try stop.check()
      map.reset()
      try unsafe overlay(
        group: group(rank: rank), rank: rank, limit: .max, segmentBase: 0, onto: map,
        scratch: scratch.bytes)
    }
  }
}
