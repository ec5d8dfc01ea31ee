import ChangeDetection
import Platform
import SnapshotRepository

/// Tells which points need a record.
struct AffectedPoints {
  /// Groups of layers that are kept, of 140 KiB each.
  private static let mapLimit = 64

  private struct Key: Hashable {
    let layer: Int
    let group: Int
  }

  let disk: DiskHistory
  private let shelf: LayerShelf
  private var maps: [Key: (map: GroupMap?, used: Int)] = [:]
  private var clock = 0

  init(_ disk: DiskHistory, _ store: any ObjectStore) {
    self.disk = disk
    shelf = LayerShelf(store)
  }

  /// The places of the points, oldest first, that read `position` from this record.
  mutating func points(
    needing segment: ObjectID, offset: Int, position: Int
  ) throws(StrobeError) -> [Int] {
    var points: [Int] = []
    for link in disk.links where position < link.geometry.chunkCount {
      if try reads(link, segment, offset, position) { points.append(link.point) }
    }
    return points
  }

  mutating func reads(
    _ link: DiskHistory.Link, _ segment: ObjectID, _ offset: Int, _ position: Int
  ) throws(StrobeError) -> Bool {
    let group = position / ChunkGeometry.chunksPerGroup
    let index = position % ChunkGeometry.chunksPerGroup
    var limit = Int.max
    for place in link.chain.reversed() {
      let layer = try shelf.layer(disk.layers[place])
      limit = min(limit, layer.header.geometry.chunkCount)
      guard position < limit else { return false }
      guard let map = try map(place, layer, group),
        map.known[index >> 6] >> UInt64(index & 63) & 1 == 1
      else { continue }
      let location = map.location(index)
      return map.isStored(index) && Int(location.offset) == offset
        && layer.segments[Int(location.segment)] == segment
    }
    return false
  }

  /// What one layer says of a group, or nil when it says nothing.
  private mutating func map(
    _ place: Int, _ layer: LayerReader, _ group: Int
  ) throws(StrobeError) -> GroupMap? {
    clock += 1
    let key = Key(layer: place, group: group)
    if let known = maps[key] {
      maps[key]?.used = clock
      return known.map
    }
    var map: GroupMap?
    if let rank = layer.rank(ofGroup: group) {
      let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
      let filled = GroupMap()
      try unsafe layer.overlay(
        group: group, rank: rank, limit: .max, segmentBase: 0, onto: filled,
        scratch: scratch.bytes)
      map = filled
    }
    if maps.count >= Self.mapLimit, let oldest = maps.min(by: { $0.value.used < $1.value.used }) {
      maps[oldest.key] = nil
    }
    maps[key] = (map, clock)
    return map
  }
}
