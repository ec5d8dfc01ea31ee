import ChangeDetection
import Platform
import SnapshotRepository

/// A record that some point needs.
struct NeededRecord {
  /// Bytes from the start of its segment.
  let offset: Int
  /// Bytes of the record with its header.
  let length: UInt32
  /// Chunks from the start of the disk.
  let position: Int
  let fingerprint: Fingerprint
  /// Bytes of the chunk.
  let contentLength: UInt32
  /// The disk's place in the collection's history.
  let disk: UInt16
}

/// What is needed of one segment: how much, and when it was last read back.
struct SegmentNeed {
  let id: ObjectID
  let checked: Timestamp?
  var recordCount = 0
  /// Bytes of content.
  var contentBytes = 0
}

/// Finds the records that points of a collection need, a few segments at a time.
struct NeededRecords {
  /// Records at a time: 56 bytes each.
  static let limit = 1_000_000

  let store: any ObjectStore
  let disks: [DiskHistory]
  /// The share of the records that is looked at, in pieces of 1 MiB, chosen by `seed`; nil: all.
  let sample: (share: Double, seed: UInt64)?
  let stop: CancellationFlag

  /// How much is needed of each segment that a layer names. A record that two layers name counts twice.
  func needs(_ record: VerificationRecord) throws(StrobeError) -> [SegmentNeed] {
    var places: [ObjectID: Int] = [:]
    var needs: [SegmentNeed] = []
    try forEach(only: nil) { (segment, found) throws(StrobeError) in
      let place = places[segment] ?? needs.count
      if place == needs.count {
        places[segment] = place
        needs.append(SegmentNeed(id: segment, checked: record.checked(segment)))
      }
      guard let found else { return }
      needs[place].recordCount += 1
      needs[place].contentBytes += Int(found.contentLength)
    }
    return needs
  }

  /// The needed records of some segments, each once, in the order in which they lie there.
  func records(of segments: [ObjectID]) throws(StrobeError) -> [[NeededRecord]] {
    var places: [ObjectID: Int] = [:]
    for (place, segment) in segments.enumerated() { places[segment] = place }
    var records = [[NeededRecord]](repeating: [], count: segments.count)
    try forEach(only: Set(segments)) { (segment, found) throws(StrobeError) in
      guard let found, let place = places[segment] else { return }
      records[place].append(found)
    }
    for place in records.indices {
      records[place].sort { $0.offset < $1.offset }
      var last = -1
      records[place].removeAll { record in
        defer { last = record.offset }
        return record.offset == last
      }
    }
    return records
  }

  /// Calls `body` with every segment that a layer names, and nothing, and with every needed record.
  private func forEach(
    only wanted: Set<ObjectID>?,
    _ body: (ObjectID, NeededRecord?) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    for (place, disk) in disks.enumerated() {
      let shelf = LayerShelf(store)
      let records = LiveRecords(disk, shelf, stop)
      for layer in disk.layers.indices where !disk.continuations[layer].isEmpty {
        let reader = try shelf.layer(disk.layers[layer])
        let segments = reader.segments
        if let wanted, !segments.contains(where: wanted.contains) { continue }
        for segment in segments { try body(segment, nil) }
        let geometry = reader.header.geometry
        try records.forEachGroup(ofLayer: layer) { (group) throws(StrobeError) in
          try group.forEachRecord { (position, fingerprint, location) throws(StrobeError) in
            guard self.isChosen(location) else { return }
            try body(
              segments[Int(location.segment)],
              NeededRecord(
                offset: Int(location.offset), length: location.length, position: position,
                fingerprint: fingerprint, contentLength: UInt32(geometry.length(of: position)),
                disk: UInt16(place)))
          }
        }
      }
    }
  }

  private func isChosen(_ location: ChunkLocation) -> Bool {
    guard let sample else { return true }
    // splitmix64 of the piece, so that neighbours are read together.
    var mixed = sample.seed &+ (location.offset >> 20 &+ 1) &* 0x9E37_79B9_7F4A_7C15
    mixed ^= UInt64(location.segment) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return Double((mixed ^ mixed >> 31) >> 11) / Double(1 << 53) < sample.share
  }
}
