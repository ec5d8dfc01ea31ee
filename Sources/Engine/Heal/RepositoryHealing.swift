import ChangeDetection
import Platform
import SnapshotRepository

/// Finds the content of damaged records in another repository: in the object of the same name, as in a copy, or
/// anywhere in points of the same collection.
struct RepositoryHealing {
  private let other: Repository
  private let secret: FingerprintSecret
  private let history: CollectionHistory
  private let stop: CancellationFlag

  /// - Throws: `notFound` when the other repository has no such collection, or one that was made on its own.
  init(
    _ other: Repository, _ collection: CollectionRecord, _ stop: CancellationFlag
  ) throws(StrobeError) {
    guard let secret = collection.secret else {
      preconditionFailure("a collection has a secret")
    }
    self.other = other
    self.secret = secret
    self.stop = stop
    var facts: [PointFacts] = []
    for summary in try PointIndex.load(other, collection.name).points {
      try stop.check()
      guard let point = try? RestorePoint.read(other.store, collection.name, summary.id),
        point.secret == secret
      else { continue }
      facts.append(PointFacts(point))
    }
    guard !facts.isEmpty else {
      throw StrobeError(
        .notFound,
        "\(other.store.location) has no point of this collection \(Names.quoted(collection.name))",
        advice: "only a copy of the collection has the same fingerprints")
    }
    history = CollectionHistory(name: collection.name, facts)
  }

  /// Bytes of the largest layer that is copied: it is held in memory.
  private static let layerLimit = 192 << 20

  /// Puts whole layers in the place of damaged ones of the same name.
  ///
  /// - Returns: those that are whole again.
  func heal(
    layers: [ObjectID], _ store: any ObjectStore
  ) throws(StrobeError) -> [ObjectID] {
    var healed: [ObjectID] = []
    for id in layers {
      try stop.check()
      do throws(StrobeError) {
        try LayerReader(other.store, id).checkAllGroups(stop)
        let bytes = try other.store.get(id.layerName, limit: Self.layerLimit)
        try store.put(id.layerName, bytes, replacing: true)
        try LayerReader(store, id).checkAllGroups(stop)
        healed.append(id)
      } catch {
        // Not there, or not good there either.
        guard error.isUnreadable || error.reason == .notFound else { throw error }
      }
    }
    return healed
  }

  /// Stores again what the other repository has.
  func heal(_ damage: [DamagedRecord], _ writer: inout RecordWriter) throws(StrobeError) {
    for disk in history.disks {
      var missing: [DamagedRecord] = []
      for record in damage where record.disk == disk.name {
        try stop.check()
        let reader = ChunkReader(other.store, secret, segments: [record.segment])
        if try !copy(record, record.location, reader, &writer) { missing.append(record) }
      }
      try search(missing, disk, &writer)
    }
  }

  /// Looks at the same positions in every layer that the other repository has of the disk.
  private func search(
    _ damage: [DamagedRecord], _ disk: DiskHistory, _ writer: inout RecordWriter
  ) throws(StrobeError) {
    var missing = damage
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for id in disk.layers.reversed() {
      try stop.check()
      guard !missing.isEmpty, let layer = try? LayerReader(other.store, id) else { continue }
      let reader = ChunkReader(other.store, secret, segments: layer.segments)
      var left: [DamagedRecord] = []
      var resolved = -1
      for record in missing {
        let group = record.position / ChunkGeometry.chunksPerGroup
        let index = record.position % ChunkGeometry.chunksPerGroup
        if group != resolved {
          map.reset()
          resolved = group
          if let rank = layer.rank(ofGroup: group) {
            try? unsafe layer.overlay(
              group: group, rank: rank, limit: .max, segmentBase: 0, onto: map,
              scratch: scratch.bytes)
          }
        }
        guard map.isStored(index), map.fingerprint(index) == record.fingerprint,
          try copy(record, map.location(index), reader, &writer)
        else {
          left.append(record)
          continue
        }
      }
      missing = left
    }
  }

  /// - Returns: whether the record could be read there and was stored here.
  private func copy(
    _ record: DamagedRecord, _ location: ChunkLocation, _ reader: ChunkReader,
    _ writer: inout RecordWriter
  ) throws(StrobeError) -> Bool {
    let content = AlignedBuffer(count: record.contentLength)
    let bytes = unsafe UnsafeMutableRawBufferPointer(
      rebasing: content.bytes[..<record.contentLength])
    guard unsafe read(location, record.fingerprint, reader, into: bytes) else { return false }
    return try unsafe writer.store(UnsafeRawBufferPointer(bytes), for: record)
  }

  private func read(
    _ location: ChunkLocation, _ fingerprint: Fingerprint, _ reader: ChunkReader,
    into content: UnsafeMutableRawBufferPointer
  ) -> Bool {
    do throws(StrobeError) {
      let record = AlignedBuffer(count: Int(location.length))
      let bytes = unsafe UnsafeMutableRawBufferPointer(
        rebasing: record.bytes[..<Int(location.length)])
      try unsafe reader.segment(location.segment).read(at: Int(location.offset), into: bytes)
      try unsafe reader.decode(
        UnsafeRawBufferPointer(bytes), at: location, fingerprint: fingerprint, into: content)
      return true
    } catch {
      return unsafe reader.readReplacement(
        of: location, fingerprint: fingerprint, into: content)
    }
  }
}
