import BlockDevices
import ChangeDetection
import Platform
import Synchronization

/// One walk over a disk, or over the chunks of it that are candidates: what its workers share.
final class ScanRound: Sendable {
  let capture: DiskCapture
  let source: DiskSource
  /// Whether chunks may have been captured by an earlier round of the pass.
  let isRepeat: Bool
  let stop: CancellationFlag

  /// The chunks to look at, or nil for all.
  private let candidates: ChunkBitmap?
  /// Chunks that surely read as zeros, or nil when nothing is known.
  private let holes: ChunkBitmap?
  private let nextWord = Atomic<Int>(0)

  init(
    _ capture: DiskCapture, source: DiskSource, candidates: ChunkBitmap?, isRepeat: Bool,
    stop: CancellationFlag
  ) {
    self.capture = capture
    self.source = source
    self.candidates = candidates
    self.isRepeat = isRepeat
    self.stop = stop
    // Where few chunks are looked at, finding out what are holes costs more than reading them: the walk
    // over a file's extents grows with the disk.
    holes = candidates == nil ? Self.holes(source, capture.geometry, stop) : nil
  }

  /// Chunks of a disk that surely read as zeros, or nil when nothing is known.
  static func holes(
    _ source: DiskSource, _ geometry: ChunkGeometry, _ stop: CancellationFlag
  ) -> ChunkBitmap? {
    var bitmap: ChunkBitmap?
    source.forEachHole(stop: stop) { hole in
      let first = (hole.lowerBound + geometry.chunkSize - 1) / geometry.chunkSize
      let end =
        hole.upperBound == geometry.diskSize
        ? geometry.chunkCount : hole.upperBound / geometry.chunkSize
      guard first < end else { return }
      let known = bitmap ?? ChunkBitmap(chunkCount: geometry.chunkCount)
      known.insert(first..<end)
      bitmap = known
    }
    return bitmap
  }

  /// Runs the round on workers of its own.
  func run(workers: Int?) throws(StrobeError) {
    let memory = ScanMemory(chunkSize: capture.geometry.chunkSize)
    let count = min(memory.workers(asked: workers), source.readerLimit)
    try onWorkers(count, stop: stop) { _ throws(StrobeError) in
      var worker = try ScanWorker(self, memory)
      try worker.run()
    }
  }

  /// The words of the next stripe that has something to be looked at, or nil when the disk is done.
  func claim() -> Range<Int>? {
    let end = capture.geometry.wordCount
    while true {
      let first = nextWord.wrappingAdd(capture.wordsPerStripe, ordering: .relaxed).oldValue
      guard first < end else { return nil }
      let words = first..<min(first + capture.wordsPerStripe, end)
      guard let candidates else { return words }
      if words.contains(where: { candidates[word: $0] != 0 }) { return words }
    }
  }

  /// The chunks of a word that are to be looked at.
  func wanted(word: Int) -> UInt64 {
    let existing = capture.existing(word: word)
    return candidates.map { $0[word: word] & existing } ?? existing
  }

  /// The chunks of a word that surely read as zeros.
  func holes(word: Int) -> UInt64 { holes?[word: word] ?? 0 }
}
