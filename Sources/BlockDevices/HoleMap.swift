import CLinux
import Glibc
package import Platform

extension FileFacts {
  /// Whether less is allocated than the file is long: otherwise there is nothing to look for.
  fileprivate var hasHoles: Bool { blocks512 * 512 < size }
}

extension DiskSource {
  /// Calls `body` with every byte range that surely reads as zeros: the holes of an image file, or of
  /// the file behind a loop device. Nothing is reported where that can't be known.
  ///
  /// - Parameter stop: the walk ends early when it is set; a file may have millions of holes.
  ///
  /// Source: lseek(2), `SEEK_HOLE`.
  package func forEachHole(
    stop: CancellationFlag = CancellationFlag(), _ body: (Range<Int>) -> Void
  ) {
    if let network { return network.forEachHole(stop: stop, body) }
    guard let facts, let descriptor else { return }
    if kind == .blockDevice {
      holesBehindLoop(facts, stop, body)
    } else if facts.hasHoles {
      Self.holes(of: descriptor, window: 0..<size, stop, body)
    }
  }

  private func holesBehindLoop(
    _ facts: FileFacts, _ stop: CancellationFlag, _ body: (Range<Int>) -> Void
  ) {
    // A loop device's partition answers for its whole disk.
    guard DeviceTree.partition(facts.specialDevice) == nil,
      let loop = LoopBacking(of: facts.specialDevice), let file = loop.open(),
      let found = try? file.facts(), found.isRegularFile, found.hasHoles
    else { return }
    let start = Int(loop.facts.offset)
    guard start + size <= found.size else { return }
    Self.holes(of: file.number, window: start..<(start + size), stop, body)
  }

  private static func holes(
    of descriptor: Int32, window: Range<Int>, _ stop: CancellationFlag, _ body: (Range<Int>) -> Void
  ) {
    var position = window.lowerBound
    while position < window.upperBound && !stop.isCancelled {
      var data = Int(clinux_seek_data(descriptor, Int64(position)))
      if data < 0 {
        // ENXIO: nothing but a hole up to the end. Anything else: unknown, so nothing is a hole.
        guard errno == ENXIO else { return }
        data = window.upperBound
      }
      data = min(data, window.upperBound)
      if data > position { body((position - window.lowerBound)..<(data - window.lowerBound)) }
      if data >= window.upperBound { return }
      let hole = Int(clinux_seek_hole(descriptor, Int64(data)))
      guard hole > data else { return }
      position = hole
    }
  }
}
