import BlockDevices
import Platform

/// Reads ranges of a disk with requests and memory that are there beforehand.
final class RangeReader {
  /// Bytes of the largest range.
  static let largestRange = 64 << 10
  private var pipeline: ReadPipeline

  init(_ source: DiskSource, stop: CancellationFlag) throws(StrobeError) {
    pipeline = try ReadPipeline(
      source: source, depth: 64, requestSize: Self.largestRange, stop: stop)
  }

  /// Reads `ranges`, ascending, and hands them over in their order.
  func read(
    _ ranges: [Range<Int>],
    _ take: (_ bytes: UnsafeRawBufferPointer, _ offset: Int) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    var started = 0
    for range in ranges {
      while pipeline.hasRoom && started < ranges.count {
        try pipeline.start(offset: ranges[started].lowerBound, length: ranges[started].count)
        started += 1
      }
      try unsafe take(UnsafeRawBufferPointer(pipeline.next()), range.lowerBound)
      pipeline.release()
    }
  }
}
