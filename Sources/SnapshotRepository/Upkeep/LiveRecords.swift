package import ChangeDetection
package import Platform

// Which records are needed. A chunk of a layer is needed if some point's chain has the layer and no newer
// layer of that chain says something of the chunk. As chains of one disk mostly begin like one another, it is
// enough to look at the shortest continuations of each layer: with every point kept they are empty, and
// each layer is read once.

/// Walks over what a disk's points need of their layers.
package struct LiveRecords: ~Copyable {
  private let history: DiskHistory
  private let shelf: LayerShelf
  private let stop: CancellationFlag
  private let map = GroupMap()
  private let scratch = AlignedBuffer(count: LayerFormat.largestGroup)

  package init(_ history: DiskHistory, _ shelf: LayerShelf, _ stop: CancellationFlag) {
    self.history = history
    self.shelf = shelf
    self.stop = stop
  }

  /// The needed chunks of one group of a layer.
  package struct Group {
    package let layer: LayerReader
    package let group: Int
    /// Holds the needed chunks' fingerprints and locations, whose segment numbers are the layer's own.
    package let map: GroupMap
    /// The needed chunks that hold content.
    package let live: [UInt64]

    package func forEachRecord(
      _ body: (_ position: Int, Fingerprint, ChunkLocation) throws(StrobeError) -> Void
    ) throws(StrobeError) {
      for word in live.indices where live[word] != 0 {
        try forEachBit(of: live[word]) { (bit) throws(StrobeError) in
          let index = word * 64 + bit
          try body(
            group * ChunkGeometry.chunksPerGroup + index, map.fingerprint(index),
            map.location(index))
        }
      }
    }
  }

  /// Calls `body` for every group of layer `place` that holds something needed. A record may come more
  /// than once: a keyframe names what other layers name.
  ///
  /// - Throws: when the layer, or one that may hide parts of it, can't be read.
  package func forEachGroup(
    ofLayer place: Int, _ body: (Group) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    let layer = try shelf.layer(history.layers[place])
    var newer: [[LayerReader]] = []
    for way in history.continuations[place] {
      var readers: [LayerReader] = []
      for next in way { readers.append(try shelf.layer(history.layers[next])) }
      newer.append(readers)
    }
    for rank in 0..<layer.storedGroupCount {
      try stop.check()
      let group = layer.group(rank: rank)
      var seen = [UInt64](repeating: 0, count: ChunkGeometry.wordsPerGroup)
      for readers in newer {
        var live = try visible(layer, group: group, rank: rank, under: readers)
        for word in live.indices {
          live[word] &= ~seen[word]
          seen[word] |= live[word]
        }
        if live.contains(where: { $0 != 0 }) {
          try body(Group(layer: layer, group: group, map: map, live: live))
        }
      }
    }
  }

  /// Fills `map` and returns the chunks with content that are seen through `newer`, oldest first.
  private func visible(
    _ layer: LayerReader, group: Int, rank: Int, under newer: [LayerReader]
  ) throws(StrobeError) -> [UInt64] {
    map.reset()
    let first = group * ChunkGeometry.chunksPerGroup
    var limit = Int.max
    for other in newer.reversed() {
      limit = min(limit, other.header.geometry.chunkCount)
      guard let rank = other.rank(ofGroup: group) else { continue }
      try unsafe other.overlay(
        group: group, rank: rank, limit: limit - first, segmentBase: 0, onto: map,
        scratch: scratch.bytes)
    }
    let hidden = map.known
    limit = min(limit, layer.header.geometry.chunkCount)
    try unsafe layer.overlay(
      group: group, rank: rank, limit: limit - first, segmentBase: 0, onto: map,
      scratch: scratch.bytes)
    return map.stored.indices.map { map.stored[$0] & ~hidden[$0] }
  }
}
