/// How a disk is cut into chunks.
///
/// A *position* counts chunks, an *offset* counts bytes. Positions are handled in words of 64 (one word
/// of a bitmap) and in groups of 4,096 (one block of a fingerprint table, one group of a layer).
package struct ChunkGeometry: Sendable, Equatable {
  package static let chunksPerWord = 64
  package static let chunksPerGroup = 4096
  package static let wordsPerGroup = chunksPerGroup / chunksPerWord

  package static let smallestChunk = 4 << 10
  package static let largestChunk = 4 << 20
  package static let defaultChunk = 64 << 10

  /// Bytes; a multiple of 512.
  package let diskSize: Int
  /// Bytes; a power of two.
  package let chunkSize: Int

  package init(diskSize: Int, chunkSize: Int) {
    precondition(Self.isValid(chunkSize: chunkSize) && diskSize >= 0)
    self.diskSize = diskSize
    self.chunkSize = chunkSize
  }

  package static func isValid(chunkSize: Int) -> Bool {
    chunkSize >= smallestChunk && chunkSize <= largestChunk && chunkSize.nonzeroBitCount == 1
  }

  @inlinable package var chunkCount: Int { (diskSize + chunkSize - 1) / chunkSize }
  @inlinable package var wordCount: Int {
    (chunkCount + Self.chunksPerWord - 1) / Self.chunksPerWord
  }
  @inlinable package var groupCount: Int {
    (chunkCount + Self.chunksPerGroup - 1) / Self.chunksPerGroup
  }

  @inlinable package func offset(of position: Int) -> Int { position * chunkSize }

  /// Bytes of the chunk at `position`: the last one may be short.
  @inlinable package func length(of position: Int) -> Int {
    min(chunkSize, diskSize - offset(of: position))
  }

  /// The positions of a group; the last group may be short.
  @inlinable package func positions(ofGroup group: Int) -> Range<Int> {
    let first = group * Self.chunksPerGroup
    return first..<min(first + Self.chunksPerGroup, chunkCount)
  }
}
