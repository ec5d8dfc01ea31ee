import CChangeTracker
import Platform

/// The range of a whole disk that a tracker watches, and how its bitmap is divided.
///
///     word 0        64              64 + level 2       wordCount
///     ├── header ───┼── level 2 ────┼── level 1 ───────┤
///          64 words    1 bit a group    1 bit a block
///
/// A bit of level 2 says that all 4,096 blocks of a group are marked, whatever level 1 says of them.
struct TrackerGeometry: Equatable, Sendable {
  /// Bytes of the largest bitmap.
  static let mapLimit = 64 << 20
  static let headerWords = Int(TRACKER_HEADER_WORDS)
  static let groupShift = Int(TRACKER_GROUP_SHIFT)
  /// Words of level 1 in a group.
  static let groupWords = 1 << (groupShift - 6)

  /// The disk or partition that is tracked.
  let device: DeviceNumber
  /// The whole disk.
  let disk: DeviceNumber
  /// The range on the whole disk, in sectors of 512 bytes.
  let startSector: Int
  let sectorCount: Int
  /// A block is `1 << blockShift` bytes.
  let blockShift: Int

  init(
    device: DeviceNumber, disk: DeviceNumber, startSector: Int, sectorCount: Int,
    blockShift: Int? = nil
  ) {
    self.device = device
    self.disk = disk
    self.startSector = startSector
    self.sectorCount = sectorCount
    self.blockShift = blockShift ?? Self.blockShift(forSize: sectorCount << 9)
  }

  /// 16 KiB, or as much more as keeps the bitmap below its limit: 8 MiB of bitmap for 1 TiB.
  ///
  /// Small, because what is marked is what has to be read while everything is frozen: with 64 KiB, 10,000
  /// random writes a second make 640 MB of each second's.
  private static func blockShift(forSize size: Int) -> Int {
    var shift = 14
    while (size >> shift) / 8 > mapLimit - (mapLimit >> 10) { shift += 1 }
    return shift
  }

  var size: Int { sectorCount << 9 }
  var blockSize: Int { 1 << blockShift }
  var blockCount: Int { (size + blockSize - 1) >> blockShift }
  var groupCount: Int { (blockCount + (1 << Self.groupShift) - 1) >> Self.groupShift }
  var level2Words: Int { (groupCount + 63) >> 6 }
  /// Whole groups.
  var level1Words: Int { groupCount * Self.groupWords }
  var level2Start: Int { Self.headerWords }
  var level1Start: Int { Self.headerWords + level2Words }
  var wordCount: Int { level1Start + level1Words }

  /// The blocks of a group that exist.
  func blocks(ofGroup group: Int) -> Range<Int> {
    let first = group << Self.groupShift
    return first..<min(first + (1 << Self.groupShift), blockCount)
  }

  /// The bytes of blocks, clipped to the size.
  func bytes(ofBlocks blocks: Range<Int>) -> Range<Int> {
    blocks.lowerBound << blockShift..<min(blocks.upperBound << blockShift, size)
  }

  /// The blocks that a range of bytes touches.
  func blocks(ofBytes bytes: Range<Int>) -> Range<Int> {
    guard !bytes.isEmpty, bytes.lowerBound < size else { return 0..<0 }
    let end = min(bytes.upperBound, size)
    return max(0, bytes.lowerBound) >> blockShift..<((end - 1) >> blockShift) + 1
  }
}
