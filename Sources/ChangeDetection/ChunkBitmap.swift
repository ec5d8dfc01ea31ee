/// One bit a chunk of a disk, in words of 64.
///
/// Workers own whole words: no two of them ever touch the same one, so no word needs to be atomic.
@safe package final class ChunkBitmap: @unchecked Sendable {
  // Sendable: a word is written by the one worker that claimed it and read after the workers ended.
  package let wordCount: Int
  @usableFromInline let words: UnsafeMutablePointer<UInt64>

  /// All bits clear. Memory: `chunkCount / 8` bytes.
  package init(chunkCount: Int) {
    wordCount = (chunkCount + 63) / 64
    unsafe words = .allocate(capacity: max(wordCount, 1))
    unsafe words.initialize(repeating: 0, count: max(wordCount, 1))
  }

  deinit { unsafe words.deallocate() }

  package subscript(word index: Int) -> UInt64 {
    @inlinable get {
      precondition(index >= 0 && index < wordCount)
      return unsafe words[index]
    }
    @inlinable set {
      precondition(index >= 0 && index < wordCount)
      unsafe words[index] = newValue
    }
  }

  package subscript(position: Int) -> Bool {
    @inlinable get { self[word: position >> 6] & 1 << UInt64(position & 63) != 0 }
    @inlinable set {
      let bit: UInt64 = 1 << UInt64(position & 63)
      if newValue { self[word: position >> 6] |= bit } else { self[word: position >> 6] &= ~bit }
    }
  }

  /// Sets every bit of `positions`.
  package func insert(_ positions: Range<Int>) {
    guard !positions.isEmpty else { return }
    for index in (positions.lowerBound >> 6)...((positions.upperBound - 1) >> 6) {
      let first = max(positions.lowerBound - index * 64, 0)
      let end = min(positions.upperBound - index * 64, 64)
      self[word: index] |= mask(from: first, to: end)
    }
  }

  /// Clears every bit that is set in `other`, a bitmap of the same size.
  package func remove(_ other: ChunkBitmap) {
    precondition(wordCount == other.wordCount)
    for index in 0..<wordCount where other[word: index] != 0 {
      self[word: index] &= ~other[word: index]
    }
  }

  package var isEmpty: Bool { (0..<wordCount).allSatisfy { self[word: $0] == 0 } }

  /// How many bits are set.
  package var population: Int {
    var count = 0
    for index in 0..<wordCount { count += unsafe words[index].nonzeroBitCount }
    return count
  }
}

/// A word with the bits `first ..< end` set.
package func mask(from first: Int, to end: Int) -> UInt64 {
  guard first < end else { return 0 }
  let upper: UInt64 = end >= 64 ? ~0 : 1 << UInt64(end) - 1
  return upper & ~(first == 0 ? 0 : 1 << UInt64(first) - 1)
}

/// Calls `body` for every set bit, lowest first.
@inlinable
package func forEachBit<Failure: Error>(
  of word: UInt64, _ body: (Int) throws(Failure) -> Void
) throws(Failure) {
  var rest = word
  while rest != 0 {
    try body(rest.trailingZeroBitCount)
    rest &= rest - 1
  }
}
