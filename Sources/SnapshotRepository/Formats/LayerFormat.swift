package import ChangeDetection
import Platform

// A layer: what one disk restore point adds. `docs/format.md` has the byte tables.
//
//   +--------+-------+-------+--  --+----------+-----------+--------+
//   | header | group | group |  …   | segments | directory | footer |
//   +--------+-------+-------+--  --+----------+-----------+--------+
//     128      only those with a change  16 each   16 each     128
//
//   group:  index, count, word mask | changed words | stored words | fingerprints | locations | checksum
//
// Everything is written front to back and found from the end, so that a store without rewriting can
// hold it. Header, footer, tables and every group carry a checksum.

package enum LayerFormat {
  package static let magic: [UInt8] = Array("STRBLAYR".utf8)
  package static let endMagic: [UInt8] = Array("STRBLEND".utf8)
  package static let version: UInt32 = 1
  package static let keyframeFlag: UInt32 = 1
  package static let headerSize = 128
  package static let footerSize = 128
  package static let groupHeaderSize = 16
  package static let directoryEntrySize = 16
  package static let segmentEntrySize = ObjectID.byteCount
  /// Bytes of a group in which every chunk is stored.
  package static let largestGroup =
    groupHeaderSize + ChunkGeometry.wordsPerGroup * 16 + ChunkGeometry.chunksPerGroup
    * (Fingerprint.byteCount + ChunkLocation.byteCount) + 8
}

/// The first 128 bytes of a layer.
package struct LayerHeader: Equatable, Sendable {
  package let id: ObjectID
  /// A layer that holds the whole map: nothing older is needed.
  package let isKeyframe: Bool
  package let geometry: ChunkGeometry

  package init(id: ObjectID, isKeyframe: Bool, geometry: ChunkGeometry) {
    self.id = id
    self.isKeyframe = isKeyframe
    self.geometry = geometry
  }

  var encoded: [UInt8] {
    var bytes = LayerFormat.magic
    bytes.append(littleEndian: LayerFormat.version)
    bytes.append(littleEndian: isKeyframe ? LayerFormat.keyframeFlag : 0)
    bytes += id.bytes
    bytes.append(littleEndian: UInt64(geometry.diskSize))
    bytes.append(littleEndian: UInt32(geometry.chunkSize))
    bytes += [UInt8](repeating: 0, count: LayerFormat.headerSize - 8 - bytes.count)
    bytes.append(littleEndian: checksum64(bytes))
    return bytes
  }

  /// - Throws: `damaged` unless `bytes` are a header of layer `id`.
  init(_ bytes: [UInt8], of id: ObjectID) throws(StrobeError) {
    precondition(bytes.count == LayerFormat.headerSize)
    let sum = checksum64(Array(bytes[..<120]))
    guard sum == bytes.littleEndian(at: 120), Array(bytes[..<8]) == LayerFormat.magic else {
      throw .damaged(
        "\(id.layerName) header", expected: "checksum \(hexadecimal(sum))",
        found: hexadecimal(bytes.littleEndian(at: 120, as: UInt64.self)))
    }
    guard bytes.littleEndian(at: 8, as: UInt32.self) <= LayerFormat.version else {
      throw StrobeError(.newerVersion, "\(id.layerName) was written by a newer Strobe")
    }
    let size: UInt64 = bytes.littleEndian(at: 32)
    let chunk = Int(bytes.littleEndian(at: 40, as: UInt32.self))
    guard size <= UInt64(Int.max) >> 8, ChunkGeometry.isValid(chunkSize: chunk) else {
      throw .damaged(
        "\(id.layerName) header", expected: "a disk", found: "\(size) bytes in chunks of \(chunk)")
    }
    self.id = id
    isKeyframe = bytes.littleEndian(at: 12, as: UInt32.self) == LayerFormat.keyframeFlag
    geometry = ChunkGeometry(diskSize: Int(size), chunkSize: chunk)
    guard encoded == bytes else {
      throw .damaged(
        "\(id.layerName) header", expected: "layer \(id), version 1", found: "other fields")
    }
  }
}

/// The last 128 bytes of a layer.
package struct LayerFooter: Equatable, Sendable {
  package var segmentTableOffset = 0
  package var segmentCount = 0
  package var directoryOffset = 0
  package var groupCount = 0
  package var changedCount = 0
  package var storedCount = 0
  /// XXH3-64 of the segment table and the directory.
  package var tablesChecksum: UInt64 = 0

  var encoded: [UInt8] {
    var bytes = LayerFormat.endMagic
    for value in [
      segmentTableOffset, segmentCount, directoryOffset, groupCount, changedCount, storedCount,
    ] {
      bytes.append(littleEndian: UInt64(value))
    }
    bytes.append(littleEndian: tablesChecksum)
    bytes += [UInt8](repeating: 0, count: LayerFormat.footerSize - 8 - bytes.count)
    bytes.append(littleEndian: checksum64(bytes))
    return bytes
  }

  init() {}

  /// - Throws: `damaged` unless `bytes` are the footer of a layer of `size` bytes.
  init(_ bytes: [UInt8], layer: ObjectID, size: Int) throws(StrobeError) {
    precondition(bytes.count == LayerFormat.footerSize)
    let sum = checksum64(Array(bytes[..<120]))
    let found: UInt64 = bytes.littleEndian(at: 120)
    guard sum == found, Array(bytes[..<8]) == LayerFormat.endMagic else {
      throw .damaged(
        "\(layer.layerName) footer", expected: "checksum \(hexadecimal(sum))",
        found: hexadecimal(found))
    }
    let values = (0..<6).map { bytes.littleEndian(at: 8 + $0 * 8, as: UInt64.self) }
    guard values.allSatisfy({ $0 <= UInt64(Int.max) >> 16 }) else {
      throw .damaged(
        "\(layer.layerName) footer", expected: "sizes", found: "numbers beyond any size")
    }
    let numbers = values.map { Int($0) }
    segmentTableOffset = numbers[0]
    segmentCount = numbers[1]
    directoryOffset = numbers[2]
    groupCount = numbers[3]
    changedCount = numbers[4]
    storedCount = numbers[5]
    tablesChecksum = bytes.littleEndian(at: 56)
    guard segmentTableOffset >= LayerFormat.headerSize,
      directoryOffset == segmentTableOffset + segmentCount * LayerFormat.segmentEntrySize,
      size == directoryOffset + groupCount * LayerFormat.directoryEntrySize
        + LayerFormat.footerSize,
      encoded == bytes
    else {
      throw .damaged(
        "\(layer.layerName) footer", expected: "tables that fill the layer", found: "other sizes")
    }
  }
}
