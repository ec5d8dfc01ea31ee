import Glibc

/// Blocks of one source that were written: what ``ChangeTracker/exchange()`` took.
///
/// Used by one thread at a time. Memory is one bit a block, touched only where something is marked.
@safe package final class MarkedBlocks: @unchecked Sendable {
  // Sendable: handed from thread to thread, never used by two at once.
  let geometry: TrackerGeometry
  /// All blocks are marked, whatever the bits say.
  package internal(set) var isEverything = false
  /// Why everything is marked, for a message; nil when it isn't.
  package internal(set) var everythingReason: String?
  /// A bit for each group that is wholly marked.
  private var wholeGroups: [UInt64]
  /// A bit for each group in which level 1 has bits.
  private var touchedGroups: [UInt64]
  private let level1: UnsafeMutablePointer<UInt64>

  init(_ geometry: TrackerGeometry) {
    self.geometry = geometry
    wholeGroups = Array(repeating: 0, count: geometry.level2Words)
    touchedGroups = wholeGroups
    // The kernel hands out zero pages as they are touched.
    let memory = unsafe calloc(max(1, geometry.level1Words), 8)
    guard let memory = unsafe memory else { fatalError("out of memory") }
    unsafe level1 = memory.assumingMemoryBound(to: UInt64.self)
  }

  deinit { unsafe free(level1) }

  /// Bytes.
  package var blockSize: Int { geometry.blockSize }

  /// Calls `body` with each marked range of bytes of the source: ascending, as long as possible, clipped
  /// to the source's size.
  package func forEachRange(_ body: (Range<Int>) -> Void) {
    var run: Range<Int>?
    forEachRun { blocks in
      if let last = run, last.upperBound == blocks.lowerBound {
        run = last.lowerBound..<blocks.upperBound
      } else {
        if let last = run { body(geometry.bytes(ofBlocks: last)) }
        run = blocks
      }
    }
    if let last = run { body(geometry.bytes(ofBlocks: last)) }
  }

  /// Marks here what `other` has marked, too. Both must be of the same tracker.
  package func formUnion(_ other: MarkedBlocks) {
    precondition(geometry == other.geometry)
    if other.isEverything { markEverything(other.everythingReason) }
    for index in wholeGroups.indices { wholeGroups[index] |= other.wholeGroups[index] }
    other.forEachLevel1Word { add($1, toLevel1: $0) }
  }

  /// The same marks, to be changed on their own.
  package func copy() -> MarkedBlocks {
    let copy = MarkedBlocks(geometry)
    copy.formUnion(self)
    return copy
  }

  /// Marked bytes.
  package var byteCount: Int {
    var count = 0
    forEachRange { count += $0.count }
    return count
  }

  package var isEmpty: Bool {
    !isEverything && wholeGroups.allSatisfy { $0 == 0 } && touchedGroups.allSatisfy { $0 == 0 }
  }

  func markEverything(_ reason: String?) {
    isEverything = true
    if everythingReason == nil { everythingReason = reason }
  }

  func add(_ bits: UInt64, toLevel2 index: Int) { wholeGroups[index] |= bits }

  @inline(__always)
  func add(_ bits: UInt64, toLevel1 index: Int) {
    precondition(index >= 0 && index < geometry.level1Words)
    unsafe level1[index] |= bits
    let group = index / TrackerGeometry.groupWords
    touchedGroups[group >> 6] |= 1 << UInt64(group & 63)
  }

  func forEachLevel2Word(_ body: (Int, UInt64) -> Void) {
    for (index, bits) in wholeGroups.enumerated() where bits != 0 { body(index, bits) }
  }

  func forEachLevel1Word(_ body: (Int, UInt64) -> Void) {
    for (word, bits) in touchedGroups.enumerated() {
      forEachSetBit(bits) { bit in
        let first = (word << 6 + bit) * TrackerGeometry.groupWords
        for index in first..<first + TrackerGeometry.groupWords where unsafe level1[index] != 0 {
          unsafe body(index, level1[index])
        }
      }
    }
  }

  /// Runs of marked blocks in ascending order; adjacent ones may be apart.
  private func forEachRun(_ body: (Range<Int>) -> Void) {
    if isEverything {
      if geometry.blockCount > 0 { body(0..<geometry.blockCount) }
      return
    }
    for word in wholeGroups.indices {
      forEachSetBit(wholeGroups[word] | touchedGroups[word]) { bit in
        let group = word << 6 + bit
        let blocks = geometry.blocks(ofGroup: group)
        if blocks.isEmpty { return }
        if wholeGroups[word] >> UInt64(bit) & 1 != 0 { return body(blocks) }
        forEachRun(ofGroup: group, below: blocks.upperBound, body)
      }
    }
  }

  private func forEachRun(ofGroup group: Int, below limit: Int, _ body: (Range<Int>) -> Void) {
    let first = group * TrackerGeometry.groupWords
    for index in first..<first + TrackerGeometry.groupWords {
      var bits = unsafe level1[index]
      while bits != 0 {
        let start = bits.trailingZeroBitCount
        let length = (~(bits >> UInt64(start))).trailingZeroBitCount
        let block = index << 6 + start
        if block >= limit { return }
        body(block..<min(block + length, limit))
        if start + length >= 64 { break }
        bits &= ~UInt64(0) << UInt64(start + length)
      }
    }
  }
}

@inline(__always)
func forEachSetBit(_ word: UInt64, _ body: (Int) -> Void) {
  var bits = word
  while bits != 0 {
    body(bits.trailingZeroBitCount)
    bits &= bits - 1
  }
}
