import ChunkCodec
import TestSupport
import Testing

/// What chunks look like.
enum Content: CaseIterable {
  case random, text, oneByte, zeros, sparse, alternating

  func bytes(_ count: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: UInt64(count))
    switch self {
    case .random: return generator.bytes(count)
    case .text:
      let words = ["strobe ", "chunk ", "restore ", "point ", "disk "].map { Array($0.utf8) }
      var text: [UInt8] = []
      while text.count < count { text += words.randomElement(using: &generator)! }
      return Array(text.prefix(count))
    case .oneByte: return [UInt8](repeating: 0x41, count: count)
    case .zeros: return [UInt8](repeating: 0, count: count)
    case .sparse:
      var bytes = [UInt8](repeating: 0, count: count)
      for _ in 0..<(count / 100) { bytes[Int.random(in: 0..<count, using: &generator)] = 1 }
      return bytes
    case .alternating:
      // Half of it shrinks, half doesn't.
      return generator.bytes(count / 2) + [UInt8](repeating: 7, count: count - count / 2)
    }
  }
}

/// Encodes content from and to guarded memory.
func encoded(_ content: [UInt8]) -> (encoding: ChunkEncoding, stored: [UInt8], isIntact: Bool) {
  let encoder = ChunkEncoder()
  let source = GuardedMemory(content)
  let destination = GuardedMemory(count: content.count)
  let (encoding, count) = unsafe encoder.encode(
    UnsafeRawBufferPointer(source.bytes), to: destination.bytes.baseAddress!)
  let intact = source.isIntact && destination.isIntact && source.content == content
  return (encoding, Array(destination.content.prefix(count)), intact)
}

/// Decodes in guarded memory; nil when the decoder refused.
func decoded(
  _ stored: [UInt8], _ encoding: ChunkEncoding, count: Int
) -> (content: [UInt8]?, isIntact: Bool) {
  let source = GuardedMemory(stored)
  let destination = GuardedMemory(count: count)
  let accepted = unsafe decodeChunk(
    UnsafeRawBufferPointer(source.bytes), encoding: encoding, into: destination.bytes)
  let intact = source.isIntact && destination.isIntact && source.content == stored
  return (accepted ? destination.content : nil, intact)
}

@Suite("Encoding chunks")
struct ChunkCodecTests {
  private static let sizes =
    [1, 2, 3, 12, 13, 64, 511] + (1...40).map { $0 * 512 } + [65536, 65536 + 512, 1 << 20, 4 << 20]

  @Test("What is encoded is decoded to the same bytes, at every size", arguments: Content.allCases)
  func roundTrip(content: Content) {
    for size in Self.sizes {
      let bytes = content.bytes(size)
      let (encoding, stored, intact) = encoded(bytes)
      #expect(intact && stored.count <= size && !stored.isEmpty, "\(size)")
      let (found, foundIntact) = decoded(stored, encoding, count: size)
      #expect(foundIntact)
      // Not in the expectation: nobody wants to read a megabyte.
      let same = found == bytes
      #expect(same, "\(size)")
    }
  }

  @Test("What doesn't shrink is stored as it is")
  func incompressible() {
    for size in [512, 4096, 65536, 1 << 20] {
      let bytes = Content.random.bytes(size)
      let (encoding, stored, _) = encoded(bytes)
      #expect(encoding == .raw)
      #expect(stored == bytes)
    }
  }

  @Test("What shrinks is stored smaller", arguments: [Content.text, .oneByte, .zeros, .sparse])
  func compressible(content: Content) {
    for size in [4096, 65536, 1 << 20] {
      let (encoding, stored, _) = encoded(content.bytes(size))
      #expect(encoding == .lz4)
      #expect(stored.count < size * 3 / 4)
    }
  }

  @Test("One encoder serves chunk after chunk, and none depends on the one before")
  func reuse() {
    let encoder = ChunkEncoder()
    for round in 0..<3 {
      for content in Content.allCases {
        let bytes = content.bytes(4096 << round)
        let destination = GuardedMemory(count: bytes.count)
        let (encoding, count) = unsafe bytes.withUnsafeBytes {
          unsafe encoder.encode($0, to: destination.bytes.baseAddress!)
        }
        let stored = Array(destination.content.prefix(count))
        let alone = encoded(bytes)
        #expect(encoding == alone.encoding && stored == alone.stored)
        #expect(decoded(stored, encoding, count: bytes.count).content == bytes)
      }
    }
  }

  @Test("The numbers on disk are fixed")
  func rawValues() {
    #expect(ChunkEncoding.raw.rawValue == 0)
    #expect(ChunkEncoding.lz4.rawValue == 1)
    for value in UInt8(2)...255 { #expect(ChunkEncoding(rawValue: value) == nil) }
  }
}

@Suite("Decoding damaged chunks")
struct DamagedChunkTests {
  private let size = 4096

  @Test("A raw chunk of another length is refused", arguments: [0, 1, 4095, 4097, 8192])
  func rawLength(count: Int) {
    let (content, intact) = decoded(Content.random.bytes(count), .raw, count: size)
    #expect(content == nil && intact)
  }

  @Test("A compressed chunk that was cut off anywhere is refused", arguments: Content.allCases)
  func truncated(content: Content) {
    let (encoding, stored, _) = encoded(content.bytes(size))
    for count in 0..<stored.count {
      let (found, intact) = decoded(Array(stored.prefix(count)), encoding, count: size)
      #expect(found == nil && intact, "\(count) of \(stored.count)")
    }
  }

  @Test("Bytes behind a compressed chunk make it refused")
  func trailing() {
    let (encoding, stored, _) = encoded(Content.text.bytes(size))
    for extra in [[0], [0xFF], [1, 2, 3], stored] as [[UInt8]] {
      let (found, intact) = decoded(stored + extra, encoding, count: size)
      #expect(found == nil && intact)
    }
  }

  @Test("A chunk of another size than expected is refused")
  func otherSize() {
    let (encoding, stored, _) = encoded(Content.text.bytes(size))
    for count in [1, 512, size - 1, size + 1, size * 2] {
      let (found, intact) = decoded(stored, encoding, count: count)
      #expect(found == nil && intact, "\(count)")
    }
  }

  @Test("Nothing stored is refused, with memory behind it or without")
  func nothing() {
    for encoding in [ChunkEncoding.raw, .lz4] {
      let destination = GuardedMemory(count: size)
      let accepted = unsafe decodeChunk(
        UnsafeRawBufferPointer(start: nil, count: 0), encoding: encoding, into: destination.bytes)
      #expect(!accepted && destination.isIntact)
      #expect(decoded([], encoding, count: size).content == nil)
    }
  }

  @Test(
    "Every flipped byte of a compressed chunk is survived, and nothing outside is touched",
    arguments: [Content.text, .sparse, .alternating, .zeros])
  func flipped(content: Content) {
    let (_, stored, _) = encoded(content.bytes(size))
    var broken: [Int] = []
    for index in stored.indices {
      for pattern in [UInt8(1) << UInt8(index % 8), 0x80, 0xFF] {
        var damaged = stored
        damaged[index] ^= pattern
        if !decoded(damaged, .lz4, count: size).isIntact { broken.append(index) }
      }
    }
    #expect(broken.isEmpty)
  }

  @Test("Random bytes are survived", arguments: [1 as UInt64, 2, 3, 4])
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<1500 {
      let stored = generator.bytes(Int.random(in: 1...600, using: &generator))
      let count = Int.random(in: 1...8192, using: &generator)
      let (content, intact) = decoded(stored, .lz4, count: count)
      #expect(intact)
      if let content { #expect(content.count == count) }
    }
  }
}
