import ChangeDetection
import Platform

/// Which blocks of 4 KiB of some segments hold something that is needed: one bit each, 32 KiB a segment of
/// 1 GiB. A block that isn't marked may be freed.
struct LiveBlocks {
  static let blockSize = 4096

  struct Segment {
    let id: ObjectID
    /// Bytes.
    let size: Int
    /// Bytes on the medium.
    let allocated: Int
  }

  let segments: [Segment]
  private let places: [ObjectID: Int]
  private var bitmaps: [[UInt64]]

  init(_ segments: [Segment]) {
    self.segments = segments
    places = Dictionary(uniqueKeysWithValues: segments.enumerated().map { ($1.id, $0) })
    bitmaps = segments.map { segment in
      var bitmap = [UInt64](repeating: 0, count: (Self.blockCount(segment.size) + 63) / 64)
      // The header.
      if !bitmap.isEmpty { bitmap[0] = 1 }
      return bitmap
    }
  }

  private static func blockCount(_ size: Int) -> Int { (size + blockSize - 1) / blockSize }

  /// Bytes that the bitmap of a segment of `size` bytes takes.
  static func memorySize(_ size: Int) -> Int { blockCount(size) / 8 + 128 }

  /// The place of a segment in ``segments``, or nil when it isn't one of them.
  func place(of segment: ObjectID) -> Int? { places[segment] }

  /// Marks what a record touches.
  mutating func mark(_ place: Int, offset: Int, length: Int) {
    let last = (offset + length - 1) / Self.blockSize
    // A record beyond the end of its segment is damage; what is there can't be freed.
    guard length > 0, last < bitmaps[place].count * 64 else { return }
    for block in (offset / Self.blockSize)...last {
      bitmaps[place][block >> 6] |= 1 << UInt64(block & 63)
    }
  }

  /// Bytes of the marked blocks of a segment.
  func liveBytes(_ place: Int) -> Int {
    bitmaps[place].reduce(0) { $0 + $1.nonzeroBitCount } * Self.blockSize
  }

  /// Bytes that may be freed.
  func deadBytes(_ place: Int) -> Int { max(0, segments[place].allocated - liveBytes(place)) }

  /// The ranges of a segment that are marked, or those that aren't; in order, as long as they come, of
  /// whole blocks, but for a marked one at the end of the segment.
  func ranges(_ place: Int, live: Bool) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    let size = segments[place].size
    var start: Int?
    for block in 0..<Self.blockCount(size) {
      let isWanted = (bitmaps[place][block >> 6] >> UInt64(block & 63) & 1 == 1) == live
      if isWanted, start == nil { start = block }
      if !isWanted, let first = start {
        ranges.append((first * Self.blockSize)..<(block * Self.blockSize))
        start = nil
      }
    }
    if let first = start {
      // A file system frees whole blocks only, the last one too.
      let end = live ? size : Self.blockCount(size) * Self.blockSize
      ranges.append((first * Self.blockSize)..<end)
    }
    return ranges
  }
}
