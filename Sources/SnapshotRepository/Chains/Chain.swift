package import ChangeDetection
package import Platform
import Synchronization

/// The ordered layers, oldest first, that make up one disk restore point.
///
/// Chunk *c* lives in the newest layer that knows it; a chunk that no layer knows is zeros. A layer
/// says nothing of chunks beyond the end of a newer one: what a disk lost when it shrank does not come
/// back when it grows.
package final class Chain: Sendable {
  package let layers: [LayerReader]
  package let geometry: ChunkGeometry
  /// What the locations of a resolved group count.
  package let segments: [ObjectID]
  private let segmentBases: [Int]
  /// For each layer, the number of chunks that are visible through it.
  package let limits: [Int]
  private let recent = Mutex<[(group: Int, map: GroupMap)]>([])

  /// - Parameters:
  ///   - layers: at least one, oldest first.
  ///   - geometry: the disk's, as the restore point says.
  package init(
    _ store: any ObjectStore, layers: [ObjectID], geometry: ChunkGeometry
  ) throws(StrobeError) {
    var open: [LayerReader] = []
    for id in layers { open.append(try LayerReader(store, id)) }
    for layer in open where layer.header.geometry.chunkSize != geometry.chunkSize {
      throw .damaged(
        layer.header.id.layerName, expected: "chunks of \(geometry.chunkSize)",
        found: "\(layer.header.geometry.chunkSize)")
    }
    guard let newest = open.last, newest.header.geometry == geometry else {
      throw .damaged(
        layers.last?.layerName ?? "a chain", expected: "a disk of \(geometry.diskSize) bytes",
        found: "\(open.last?.header.geometry.diskSize ?? 0)")
    }
    // A keyframe doesn't say which chunks are zeros: nothing may lie below it.
    for layer in open.dropFirst() where layer.header.isKeyframe {
      throw .damaged(
        layer.header.id.layerName, expected: "a layer that continues a chain", found: "a keyframe")
    }
    var segments: [ObjectID] = []
    var bases: [Int] = []
    for layer in open {
      bases.append(segments.count)
      segments += layer.segments
    }
    var limit = Int.max
    limits = open.reversed().map {
      limit = min(limit, $0.header.geometry.chunkCount)
      return limit
    }.reversed()
    self.layers = open
    self.segments = segments
    self.geometry = geometry
    segmentBases = bases
  }

  /// Fills `map` with the whole resolved group.
  ///
  /// - Complexity: one pass over the layers that hold something of the group, newest first, until
  ///   every chunk is known.
  package func resolve(
    group: Int, into map: GroupMap, scratch: UnsafeMutableRawBufferPointer, firstLayer: Int = 0
  ) throws(StrobeError) {
    map.reset()
    let first = group * ChunkGeometry.chunksPerGroup
    let count = geometry.positions(ofGroup: group).count
    for index in stride(from: layers.count - 1, through: firstLayer, by: -1) {
      guard let rank = layers[index].rank(ofGroup: group) else { continue }
      try unsafe layers[index].overlay(
        group: group, rank: rank, limit: limits[index] - first, segmentBase: segmentBases[index],
        onto: map, scratch: scratch)
      if map.knownCount == count { return }
    }
  }

  /// The resolved group, shared by the workers that walk over a disk together; only the last few are
  /// kept.
  package func resolved(group: Int) throws(StrobeError) -> GroupMap {
    try recent.withLock { (recent) throws(StrobeError) in
      if let found = recent.first(where: { $0.group == group }) { return found.map }
      let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
      let map = GroupMap()
      try unsafe resolve(group: group, into: map, scratch: scratch.bytes)
      if recent.count >= 3 { recent.removeFirst() }
      recent.append((group, map))
      return map
    }
  }

  /// The groups that some layer holds something of, in rising order: as many as the layers say, however large the
  /// disk claims to be.
  package var touchedGroups: [Int] {
    var groups: Set<Int> = []
    for layer in layers {
      for rank in 0..<layer.storedGroupCount { groups.insert(layer.group(rank: rank)) }
    }
    return groups.filter { $0 < geometry.groupCount }.sorted()
  }

  /// Whether any layer holds something of `group`.
  package func touches(group: Int, firstLayer: Int = 0) -> Bool {
    layers[firstLayer...].contains { $0.rank(ofGroup: group) != nil }
  }
}
