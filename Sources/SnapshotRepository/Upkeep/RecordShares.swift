import ChangeDetection
package import Platform

// What each point has for itself. Points are walked over from the oldest to the newest; a record is seen from the
// point where its place on the disk begins to be read from it to the point before the one where that ends. A
// record that is seen by one point alone comes free with it.
//
// Memory: 20 bytes a chunk, at most `slabGroups` groups of 4,096 chunks at a time; longer disks are walked over in
// turns.

/// What one point needs of the segments.
package struct PointShare: Sendable, Equatable {
  /// Bytes of records that the point needs.
  package var neededBytes = 0
  /// Bytes of these that no other point needs.
  package var ownBytes = 0
}

/// Counts what the points of one disk share.
package struct RecordShares {
  private static let slabGroups = 512

  private struct Seen {
    var segment: Int32 = -1
    var length: UInt32 = 0
    var offset: UInt64 = 0
    var since: Int32 = 0
  }

  private let disk: DiskHistory
  private let store: any ObjectStore
  private let stop: CancellationFlag
  private var segments: [ObjectID: Int32] = [:]
  private var seen: [Seen] = []
  private var shares: [PointShare]

  package init(_ disk: DiskHistory, _ store: any ObjectStore, _ stop: CancellationFlag) {
    self.disk = disk
    self.store = store
    self.stop = stop
    shares = Array(repeating: PointShare(), count: disk.links.count)
  }

  /// - Returns: for each of the disk's links its share.
  package mutating func count() throws(StrobeError) -> [PointShare] {
    let groups = disk.links.reduce(0) { max($0, $1.geometry.groupCount) }
    for first in stride(from: 0, to: groups, by: Self.slabGroups) {
      try walk(first..<min(first + Self.slabGroups, groups))
    }
    return shares
  }

  private mutating func walk(_ slab: Range<Int>) throws(StrobeError) {
    seen = Array(repeating: Seen(), count: slab.count * ChunkGeometry.chunksPerGroup)
    var bytes = 0
    for place in disk.links.indices {
      try stop.check()
      try step(place, slab, &bytes)
      shares[place].neededBytes += bytes
    }
    for index in seen.indices { close(index, at: disk.links.count) }
  }

  private mutating func step(
    _ place: Int, _ slab: Range<Int>, _ bytes: inout Int
  ) throws(StrobeError) {
    let link = disk.links[place]
    let before = place > 0 ? disk.links[place - 1] : nil
    let goesOn =
      before.map { $0.geometry == link.geometry && link.chain.starts(with: $0.chain) } ?? false
    let new = goesOn ? link.chain[before!.chain.count...] : link.chain[...]
    guard !new.isEmpty else { return }
    let chain = try Chain(store, layers: new.map { disk.layers[$0] }, geometry: link.geometry)
    let numbers = chain.segments.map { number(of: $0) }
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for group in slab where !goesOn || chain.touches(group: group) {
      if group < link.geometry.groupCount {
        try unsafe chain.resolve(group: group, into: map, scratch: scratch.bytes)
      } else {
        map.reset()
      }
      let base = (group - slab.lowerBound) * ChunkGeometry.chunksPerGroup
      for word in map.known.indices {
        forEachBit(of: goesOn ? map.known[word] : .max) { bit in
          let index = word * 64 + bit
          let location = map.isStored(index) ? map.location(index) : nil
          bytes += note(base + index, location, numbers, at: place)
        }
      }
    }
  }

  private mutating func number(of segment: ObjectID) -> Int32 {
    if let number = segments[segment] { return number }
    let number = Int32(segments.count)
    segments[segment] = number
    return number
  }

  /// From point `place` on a chunk is read from `location`.
  ///
  /// - Returns: how many bytes more the point needs than the one before.
  private mutating func note(
    _ index: Int, _ location: ChunkLocation?, _ numbers: [Int32], at place: Int
  ) -> Int {
    let old = seen[index]
    guard let location else {
      close(index, at: place)
      return -Int(old.length)
    }
    let segment = numbers[Int(location.segment)]
    if old.segment == segment && old.offset == location.offset { return 0 }
    close(index, at: place)
    seen[index] = Seen(
      segment: segment, length: location.length, offset: location.offset, since: Int32(place))
    return Int(location.length) - Int(old.length)
  }

  /// Point `place` doesn't see any more what the one before saw.
  private mutating func close(_ index: Int, at place: Int) {
    let old = seen[index]
    if old.segment >= 0 && Int(old.since) == place - 1 {
      shares[place - 1].ownBytes += Int(old.length)
    }
    seen[index] = Seen()
  }
}
