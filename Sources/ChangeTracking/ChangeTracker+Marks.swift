import CChangeTracker
import Platform

extension ChangeTracker {
  /// Takes all marks and leaves none: what was written before this call, by whoever was told that the
  /// write has ended, is in the result or in that of an earlier call. A write that is in flight will be
  /// marked again when it ends.
  package func exchange() -> MarkedBlocks {
    noteOwner()
    let marked = MarkedBlocks(geometry)
    let (level2, level1) = (geometry.level2Start, geometry.level1Start)
    memory.take(level2..<level1) { marked.add($1, toLevel2: $0 - level2) }
    memory.take(level1..<geometry.wordCount) { marked.add($1, toLevel1: $0 - level1) }
    let overflow = memory.take(HeaderWord.overflow)
    if overflow != 0 { marked.markEverything(Self.describe(overflow)) }
    if isBioBased { keepPendingWrites(marked) }
    return marked
  }

  /// Puts marks back. They must come from this tracker or from one of the same range.
  package func merge(_ blocks: MarkedBlocks) {
    precondition(blocks.geometry == geometry)
    if blocks.isEverything { markEverything(TRACKER_OVERFLOW_MERGED) }
    blocks.forEachLevel2Word { memory.add($1, to: geometry.level2Start + $0) }
    blocks.forEachLevel1Word { memory.add($1, to: geometry.level1Start + $0) }
  }

  /// Whether anything in a range of bytes of the source is marked.
  package func isMarked(_ range: Range<Int>) -> Bool {
    if memory[HeaderWord.overflow] != 0 { return true }
    for block in geometry.blocks(ofBytes: range) {
      let group = block >> TrackerGeometry.groupShift
      if memory[geometry.level2Start + group >> 6] >> UInt64(group & 63) & 1 != 0 { return true }
      if memory[geometry.level1Start + block >> 6] >> UInt64(block & 63) & 1 != 0 { return true }
    }
    return false
  }

  /// Whether anything is marked at all.
  package var hasMarks: Bool {
    if memory[HeaderWord.overflow] != 0 { return true }
    return memory.firstSet(geometry.level2Start..<geometry.wordCount) != nil
  }

  /// Bytes of the source that are marked.
  package var markedBytes: Int {
    if memory[HeaderWord.overflow] != 0 { return geometry.size }
    var bytes = 0
    for group in 0..<geometry.groupCount {
      let blocks = geometry.blocks(ofGroup: group)
      if memory.peek(geometry.level2Start + group >> 6) >> UInt64(group & 63) & 1 != 0 {
        bytes += geometry.bytes(ofBlocks: blocks).count
        continue
      }
      let first = geometry.level1Start + group * TrackerGeometry.groupWords
      for index in first..<first + TrackerGeometry.groupWords {
        bytes += memory.peek(index).nonzeroBitCount << geometry.blockShift
      }
    }
    return min(bytes, geometry.size)
  }

  /// On a bio-based disk the end of a write may pass unseen. So what is in flight, as far as is known, is
  /// marked for the next exchange; and when the kernel skipped a program, everything is.
  private func keepPendingWrites(_ marked: MarkedBlocks) {
    guard let set, let writes = try? set.maps.pendingWrites(), let skips = set.skips else {
      marked.markEverything("the writes in flight can't be read")
      return markEverything(TRACKER_OVERFLOW_MISSED)
    }
    for write in writes where write.disk == geometry.disk {
      let first = (write.sector - geometry.startSector) << 9
      mark(geometry.blocks(ofBytes: first..<first + write.sectorCount << 9))
    }
    if skips != memory[HeaderWord.skips] {
      memory[HeaderWord.skips] = skips
      marked.markEverything(Self.describe(UInt64(TRACKER_OVERFLOW_MISSED)))
      markEverything(TRACKER_OVERFLOW_MISSED)
    }
  }

  private func mark(_ blocks: Range<Int>) {
    for block in blocks {
      memory.add(1 << UInt64(block & 63), to: geometry.level1Start + block >> 6)
    }
  }

  private func markEverything(_ bit: Int) {
    memory.add(UInt64(bit), to: HeaderWord.overflow)
  }

  /// Why everything is marked: the bits of the overflow word.
  static func describe(_ overflow: UInt64) -> String {
    let reasons: [(Int, String)] = [
      (TRACKER_OVERFLOW_PENDING, "more writes were in flight than the tracker can hold"),
      (TRACKER_OVERFLOW_RANGE, "a command to the disk named no range"),
      (TRACKER_OVERFLOW_UNKNOWN, "a write ended whose beginning was not seen"),
      (TRACKER_OVERFLOW_MISSED, "the kernel skipped the tracker's program"),
      (TRACKER_OVERFLOW_MERGED, "an earlier pass was told that everything may have changed"),
    ]
    return reasons.filter { overflow & UInt64($0.0) != 0 }.map(\.1).joined(separator: "; ")
  }
}
