import ChangeDetection
import Platform
import SnapshotRepository

/// Turns what a scan found into a layer, and brings the head table up to date after the commit.
struct LayerAssembly {
  let repository: Repository
  let geometry: ChunkGeometry
  let changed: ChunkBitmap
  let stored: ChunkBitmap
  let spool: PassSpool
  /// The segments of the pass.
  let segments: [ObjectID]
  /// Whose segments it took over.
  let earlier: EarlierPasses?

  /// Writes the layer of a disk restore point, durably.
  ///
  /// - Returns: how many chunks changed and how many of those hold content.
  func writeLayer(
    _ id: ObjectID, stop: CancellationFlag
  ) throws(StrobeError) -> (changed: Int, stored: Int) {
    let writer = try LayerWriter(
      repository.store, LayerHeader(id: id, isKeyframe: false, geometry: geometry))
    var numbers = SegmentNumbers()
    let map = GroupMap()
    let scratch = AlignedBuffer(count: ChunkGeometry.chunksPerGroup * PassSpool.entrySize)
    for group in changedGroups() {
      try stop.check()
      map.reset()
      try unsafe spool.read(
        group: group, changed: changed, stored: stored, into: map, scratch: scratch.bytes,
        renumber: { numbers.number(of: EarlierPasses.segment($0, own: segments, earlier)) })
      try writer.append(group: group, map)
    }
    try writer.finish(segments: numbers.ids)
    return (writer.changedCount, writer.storedCount)
  }

  private func changedGroups() -> [Int] {
    (0..<geometry.groupCount).filter { group in
      let first = group * ChunkGeometry.wordsPerGroup
      let words = first..<min(first + ChunkGeometry.wordsPerGroup, changed.wordCount)
      return words.contains { changed[word: $0] != 0 }
    }
  }

  /// Changes the parent's head table into that of the new point.
  func update(_ table: FingerprintTable, to layer: ObjectID) throws(StrobeError) {
    try table.invalidate()
    let map = GroupMap()
    let block = AlignedBuffer(count: FingerprintTable.blockSize)
    let scratch = AlignedBuffer(count: ChunkGeometry.chunksPerGroup * PassSpool.entrySize)
    for group in changedGroups() {
      _ = try unsafe table.read(group: group, into: block.bytes)
      map.reset()
      try unsafe spool.read(
        group: group, changed: changed, stored: stored, into: map, scratch: scratch.bytes,
        renumber: { $0 })
      for word in map.known.indices {
        forEachBit(of: map.known[word]) { bit in
          let index = word * 64 + bit
          unsafe map.fingerprint(index).store(at: block.address + index * Fingerprint.byteCount)
        }
      }
      try unsafe table.write(group: group, UnsafeRawBufferPointer(block.bytes))
    }
    try table.validate(layer: layer.bytes)
  }

  /// Makes a head table from a chain.
  static func makeTable(_ path: String, of chain: Chain) throws(StrobeError) {
    try makeDirectories(parentDirectory(path))
    let table = try FingerprintTable.create(path, geometry: chain.geometry)
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for group in chain.touchedGroups {
      try unsafe chain.resolve(group: group, into: map, scratch: scratch.bytes)
      try unsafe table.write(group: group, map.fingerprints)
    }
    guard let newest = chain.layers.last else { return }
    try table.validate(layer: newest.header.id.bytes)
  }
}
