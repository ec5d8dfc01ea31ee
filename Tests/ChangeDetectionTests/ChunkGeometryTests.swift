import ChangeDetection
import Testing

@Suite("Chunk geometry")
struct ChunkGeometryTests {
  /// Sizes around every multiple of a chunk that matters: chunk, word and group boundaries.
  private static func sizes(_ chunkSize: Int) -> [Int] {
    var sizes: [Int] = []
    for chunks in [0, 1, 2, 3, 63, 64, 65, 127, 128, 4095, 4096, 4097, 8192] {
      for sectors in [-2, -1, 0, 1, 2, 7] where chunks * chunkSize + sectors * 512 >= 0 {
        sizes.append(chunks * chunkSize + sectors * 512)
      }
    }
    return sizes
  }

  @Test(
    "Chunks tile the disk: without gaps, none empty, only the last one short",
    arguments: (12...22).map { 1 << $0 })
  func tiling(chunkSize: Int) {
    for size in Self.sizes(chunkSize) {
      let geometry = ChunkGeometry(diskSize: size, chunkSize: chunkSize)
      var end = 0
      var sound = true
      for position in 0..<geometry.chunkCount {
        let length = geometry.length(of: position)
        sound = sound && geometry.offset(of: position) == end && length > 0
        sound = sound && (length == chunkSize || position == geometry.chunkCount - 1)
        end += length
      }
      #expect(sound && end == size, "disk of \(size) in chunks of \(chunkSize)")
    }
  }

  @Test("Words and groups hold every chunk and none is empty", arguments: [4096, 65536, 4 << 20])
  func wordsAndGroups(chunkSize: Int) {
    for size in Self.sizes(chunkSize) {
      let geometry = ChunkGeometry(diskSize: size, chunkSize: chunkSize)
      let count = geometry.chunkCount
      #expect(geometry.wordCount == count / 64 + (count % 64 == 0 ? 0 : 1))
      #expect(geometry.groupCount == count / 4096 + (count % 4096 == 0 ? 0 : 1))
      var next = 0
      for group in 0..<geometry.groupCount {
        let positions = geometry.positions(ofGroup: group)
        #expect(positions.lowerBound == next && !positions.isEmpty)
        #expect(positions.count == 4096 || group == geometry.groupCount - 1)
        next = positions.upperBound
      }
      #expect(next == count)
    }
  }

  @Test("Every disk size up to a few small chunks is cut as a count of sectors would")
  func everySmallSize() {
    for sectors in 0...64 {
      let geometry = ChunkGeometry(diskSize: sectors * 512, chunkSize: 4096)
      #expect(geometry.chunkCount == (sectors + 7) / 8)
      let lengths = (0..<geometry.chunkCount).map(geometry.length(of:))
      #expect(lengths.reduce(0, +) == sectors * 512)
      #expect(lengths.dropLast().allSatisfy { $0 == 4096 })
    }
  }

  @Test("A disk of 1 PiB has the sizes that arithmetic says")
  func huge() {
    let geometry = ChunkGeometry(diskSize: 1 << 50, chunkSize: 64 << 10)
    #expect(geometry.chunkCount == 1 << 34)
    #expect(geometry.wordCount == 1 << 28)
    #expect(geometry.groupCount == 1 << 22)
    #expect(geometry.offset(of: 1 << 33) == 1 << 49)
  }

  @Test("Chunk sizes are powers of two from 4 KiB to 4 MiB")
  func validSizes() {
    let valid = Set((12...22).map { 1 << $0 })
    for exponent in 0...62 {
      for size in [
        (1 << exponent) - 1, 1 << exponent, (1 << exponent) + 1, 3 << max(exponent - 1, 0),
      ] {
        #expect(ChunkGeometry.isValid(chunkSize: size) == valid.contains(size), "\(size)")
      }
    }
    for size in [0, -1, -4096, Int.min, Int.max] {
      #expect(!ChunkGeometry.isValid(chunkSize: size))
    }
    #expect(ChunkGeometry.isValid(chunkSize: ChunkGeometry.defaultChunk))
  }
}
