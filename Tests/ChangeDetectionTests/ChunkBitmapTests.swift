import ChangeDetection
import TestSupport
import Testing

@Suite("Chunk bitmaps")
struct ChunkBitmapTests {
  private func bits(_ word: UInt64) -> [Bool] { (0..<64).map { word >> UInt64($0) & 1 == 1 } }

  /// The words that an array of Bool stands for.
  private func words(_ bits: [Bool]) -> [UInt64] {
    var words = [UInt64](repeating: 0, count: (bits.count + 63) / 64)
    for (position, bit) in bits.enumerated() where bit {
      words[position / 64] |= 1 << UInt64(position % 64)
    }
    return words
  }

  private func words(_ bitmap: ChunkBitmap) -> [UInt64] {
    (0..<bitmap.wordCount).map { bitmap[word: $0] }
  }

  @Test("A mask has exactly the bits of its range, for every range")
  func masks() {
    for first in 0...64 {
      for end in 0...64 {
        let expected = (0..<64).map { $0 >= first && $0 < end }
        #expect(bits(mask(from: first, to: end)) == expected, "\(first) to \(end)")
      }
    }
  }

  @Test("Inserting a range sets exactly its bits, for every range of a small bitmap")
  func everyRange() {
    let count = 140
    for first in 0...count {
      for end in first...count {
        let bitmap = ChunkBitmap(chunkCount: count)
        bitmap.insert(first..<end)
        let expected = words((0..<count).map { $0 >= first && $0 < end })
        guard words(bitmap) == expected, bitmap.population == end - first else {
          Issue.record("\(first)..<\(end)")
          return
        }
      }
    }
  }

  @Test("Ranges join what is set already")
  func union() {
    let bitmap = ChunkBitmap(chunkCount: 200)
    bitmap[5] = true
    bitmap.insert(60..<130)
    bitmap.insert(100..<150)
    bitmap.insert(7..<7)
    #expect((0..<200).filter { bitmap[$0] } == [5] + Array(60..<150))
  }

  @Test(
    "Every single bit of a small bitmap is set and cleared alone", arguments: [1, 63, 64, 65, 130])
  func singleBits(count: Int) {
    let bitmap = ChunkBitmap(chunkCount: count)
    for position in 0..<count {
      bitmap[position] = true
      #expect((0..<count).filter { bitmap[$0] } == [position])
      #expect(bitmap.population == 1)
      bitmap[position] = false
      #expect(bitmap.population == 0)
    }
  }

  @Test("Random changes leave what they leave in an array of Bool", arguments: [1 as UInt64, 2, 3])
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...1000, using: &generator)
    let bitmap = ChunkBitmap(chunkCount: count)
    var expected = [Bool](repeating: false, count: count)
    for _ in 0..<2000 {
      let position = Int.random(in: 0..<count, using: &generator)
      switch Int.random(in: 0..<3, using: &generator) {
      case 0:
        bitmap[position] = true
        expected[position] = true
      case 1:
        bitmap[position] = false
        expected[position] = false
      default:
        let end = min(count, position + Int.random(in: 0..<100, using: &generator))
        bitmap.insert(position..<end)
        for index in position..<end { expected[index] = true }
        // Most of it again, so that it doesn't fill up.
        for index in position..<max(position, end - 1) {
          bitmap[index] = false
          expected[index] = false
        }
      }
    }
    #expect(words(bitmap) == words(expected))
    #expect(bitmap.population == expected.count { $0 })
    #expect((0..<count).map { bitmap[$0] } == expected)
  }

  @Test("Set bits are visited lowest first, each once")
  func visiting() {
    var generator = SeededGenerator(seed: 4)
    var some = (0..<64).map { UInt64(1) << UInt64($0) } + [0, .max, 1 << 63 | 1]
    for _ in 0..<200 { some.append(generator.next()) }
    for word in some {
      var visited: [Int] = []
      forEachBit(of: word) { visited.append($0) }
      #expect(visited == bits(word).indices.filter { bits(word)[$0] })
    }
  }

  @Test("An error ends the visit")
  func visitEnds() {
    struct Enough: Error {}
    var visited: [Int] = []
    #expect(throws: Enough.self) {
      try forEachBit(of: 0b10110) { bit throws(Enough) in
        visited.append(bit)
        if bit == 2 { throw Enough() }
      }
    }
    #expect(visited == [1, 2])
  }

  @Test("A bitmap of nothing has no words")
  func empty() {
    let bitmap = ChunkBitmap(chunkCount: 0)
    bitmap.insert(0..<0)
    #expect(bitmap.wordCount == 0 && bitmap.population == 0)
  }

  @Test("A bit outside stops the program")
  func outside() async {
    await #expect(processExitsWith: .failure) { ChunkBitmap(chunkCount: 64)[64] = true }
  }
}
