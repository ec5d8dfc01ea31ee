import BlockDevices
import Platform

/// How long reading a whole disk would take, from a sample of it.
enum ReadEstimate {
  private static let requestSize = 1 << 20
  private static let requestCount = 48

  /// Seconds that a scan of the disk will take, roughly; for a disk that has to be read while it is frozen.
  static func seconds(_ source: DiskSource, stop: CancellationFlag) throws(StrobeError) -> Double {
    var holes = 0
    source.forEachHole(stop: stop) { holes += $0.count }
    let requests = min(requestCount, source.size / requestSize)
    guard requests > 0 else { return 0 }
    var pipeline = try ReadPipeline(
      source: source, depth: 4, requestSize: requestSize, stop: stop)
    let step = source.size / requests / 4096 * 4096
    let start = monotonicSeconds()
    var started = 0
    for _ in 0..<requests {
      while pipeline.hasRoom && started < requests {
        try pipeline.start(offset: started * step, length: requestSize)
        started += 1
      }
      _ = try unsafe pipeline.next()
      pipeline.release()
    }
    let rate = Double(requests * requestSize) / max(monotonicSeconds() - start, 0.000_1)
    return Double(source.size - holes) / rate
  }
}
