package import ChangeDetection
package import Platform

/// A record that was found damaged and is needed.
package struct DamagedRecord: Codable, Sendable, Equatable {
  package let disk: String
  /// Chunks from the start of the disk.
  package let position: Int
  /// 32 hexadecimal digits.
  let segmentID: String
  /// Bytes.
  package let offset: Int
  /// Bytes of the record with its header.
  package let length: Int
  /// Bytes of the chunk.
  package let contentLength: Int
  /// 32 hexadecimal digits: what the content's fingerprint should be.
  let fingerprintText: String
  package let found: Timestamp

  package init(
    disk: String, position: Int, segment: ObjectID, offset: Int, length: Int, contentLength: Int,
    fingerprint: Fingerprint, found: Timestamp
  ) {
    self.disk = disk
    self.position = position
    segmentID = segment.description
    self.offset = offset
    self.length = length
    self.contentLength = contentLength
    fingerprintText = fingerprint.description
    self.found = found
  }

  package var segment: ObjectID { ObjectID(segmentID)! }

  package var fingerprint: Fingerprint {
    Fingerprint(
      low: UInt64(fingerprintText.suffix(16), radix: 16)!,
      high: UInt64(fingerprintText.prefix(16), radix: 16)!)
  }

  package var location: ChunkLocation {
    ChunkLocation(segment: 0, length: UInt32(length), offset: UInt64(offset))
  }

  /// Tells records apart.
  package var key: String { "\(segmentID) \(offset)" }

  fileprivate var makesSense: Bool {
    ObjectID(segmentID) != nil
      && bytes(hexadecimal: fingerprintText)?.count == Fingerprint.byteCount
      && (0..<(Int.max >> 8)).contains(position) && (0..<(Int.max >> 8)).contains(offset)
      && length > SegmentFormat.recordHeaderSize && length < Int(UInt32.max)
      && contentLength > 0 && contentLength <= ChunkGeometry.largestChunk
  }
}

/// When the segments of a collection were last read back, and what was damaged:
/// `collections/<collection>/verification.json`. Losing it costs reading, no content.
package struct VerificationRecord: Codable, Sendable, Equatable {
  /// Damaged records that are remembered; more are found again when these are healed.
  package static let damageLimit = 100_000

  private static let objectFile = "verification.json"

  let format: Int
  /// By segment id, when all that was needed of it was last read back and checked.
  private var segments: [String: Timestamp]
  package private(set) var damage: [DamagedRecord]
  /// By layer id, when a layer was found damaged.
  private var damagedLayers: [String: Timestamp]?
  /// The sequence of the newest point whose layers were all read, good or not.
  package private(set) var lastSequence: Int?

  package init() {
    format = Document.format
    segments = [:]
    damage = []
  }

  package static func objectName(_ collection: String) -> String {
    "collections/\(collection)/\(objectFile)"
  }

  /// What is remembered of a collection; nothing when there is no record or it is damaged.
  package static func read(
    _ store: any ObjectStore, _ collection: String
  ) throws(StrobeError) -> VerificationRecord {
    let name = objectName(collection)
    do throws(StrobeError) {
      let record = try Document.decode(
        VerificationRecord.self, store.get(name, limit: Document.sizeLimit), name: name)
      return record.damage.allSatisfy(\.makesSense) ? record : VerificationRecord()
    } catch {
      guard error.isDamage || error.reason == .notFound else { throw error }
      return VerificationRecord()
    }
  }

  /// Changes what is remembered, one at a time.
  package static func update(
    _ store: any ObjectStore, _ collection: String, _ change: (inout VerificationRecord) -> Void
  ) throws(StrobeError) {
    let lock = try wait(store, "locks/verification-\(collection)")
    defer { lock.release() }
    var record = try read(store, collection)
    let before = record
    change(&record)
    guard record != before else { return }
    try store.put(objectName(collection), Document.encode(record), replacing: true)
  }

  private static func wait(
    _ store: any ObjectStore, _ name: String
  ) throws(StrobeError) -> any StoreLock {
    for _ in 0..<300 {
      if let lock = try store.lock(name, note: LockNote("verify").description) { return lock }
    }
    throw StrobeError(
      .busy, "what was verified is being written down by another command", advice: "try again")
  }

  package func checked(_ segment: ObjectID) -> Timestamp? { segments[segment.description] }

  /// All that is needed of a segment was read back.
  package mutating func note(_ segment: ObjectID, checked: Timestamp) {
    segments[segment.description] = checked
  }

  /// Layers that were found damaged.
  package var damagedLayerIDs: [ObjectID] {
    (damagedLayers ?? [:]).keys.sorted().compactMap { ObjectID($0) }
  }

  package func isDamaged(layer: ObjectID) -> Bool { damagedLayers?[layer.description] != nil }

  /// The layers of all points up to this sequence were read. No time: clocks go back.
  package mutating func note(sequence: Int) { lastSequence = max(sequence, lastSequence ?? 0) }

  /// Layers that were read whole: those of them that are damaged are remembered, the others no more.
  package mutating func note(layers: [ObjectID], damaged: Set<ObjectID>, at time: Timestamp) {
    var known = damagedLayers ?? [:]
    for layer in layers { known[layer.description] = damaged.contains(layer) ? time : nil }
    damagedLayers = known.isEmpty ? nil : known
  }

  /// Forgets damage of layers that no point has any more.
  package mutating func keep(layers: Set<ObjectID>) {
    let known = Set(layers.map(\.description))
    let kept = (damagedLayers ?? [:]).filter { known.contains($0.key) }
    damagedLayers = kept.isEmpty ? nil : kept
  }

  /// Forgets segments that are gone.
  package mutating func keep(_ ids: Set<ObjectID>) {
    let known = Set(ids.map(\.description))
    segments = segments.filter { known.contains($0.key) }
    damage.removeAll { !ids.contains($0.segment) }
  }

  package mutating func add(_ found: [DamagedRecord]) {
    var known = Set(damage.map(\.key))
    for record in found where damage.count < Self.damageLimit {
      if known.insert(record.key).inserted { damage.append(record) }
    }
  }

  /// Forgets damage that was healed, or that nobody needs any more.
  package mutating func remove(_ healed: [DamagedRecord]) {
    let keys = Set(healed.map(\.key))
    damage.removeAll { keys.contains($0.key) }
  }
}
