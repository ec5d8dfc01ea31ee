import ChangeDetection
import ChunkCodec
import Platform
import SnapshotRepository

/// Stores chunks again in the place of damaged records.
///
/// Invariants:
/// - A replacement's segment is durable before a repair names it, and its pass is registered until the repair
///   is written: nobody takes it for garbage in between.
/// - Only content that has the fingerprint of the damaged record is stored for it.
struct RecordWriter: ~Copyable {
  private let store: any ObjectStore
  private let secret: FingerprintSecret
  private let segments: SegmentWriter
  private let encoder = ChunkEncoder()
  private var replacements:
    [ObjectID: [(damaged: DamagedRecord, number: UInt32, offset: Int, length: Int)]] = [:]

  init(_ store: any ObjectStore, _ secret: FingerprintSecret, _ segments: SegmentWriter) {
    self.store = store
    self.secret = secret
    self.segments = segments
  }

  /// Stores `content` for `damaged`, if it is what was stored there.
  ///
  /// - Returns: whether it was.
  mutating func store(
    _ content: UnsafeRawBufferPointer, for damaged: DamagedRecord
  ) throws(StrobeError) -> Bool {
    guard content.count == damaged.contentLength,
      unsafe secret.fingerprint(of: content) == damaged.fingerprint
    else { return false }
    let record = AlignedBuffer(count: SegmentFormat.recordHeaderSize + content.count)
    let (encoding, count) = unsafe encoder.encode(
      content, to: record.address + SegmentFormat.recordHeaderSize)
    let header = ChunkRecord(
      encoding: encoding, storedLength: count, contentLength: content.count,
      fingerprint: damaged.fingerprint)
    unsafe header.store(at: record.address)
    let length = SegmentFormat.recordHeaderSize + count
    let (number, offset) = try unsafe segments.append(
      UnsafeRawBufferPointer(rebasing: record.bytes[..<length]))
    add(damaged, number, offset, length)
    return true
  }

  /// Names a record that the pass stored anyway.
  mutating func use(_ location: ChunkLocation, for damaged: DamagedRecord) {
    add(damaged, location.segment, Int(location.offset), Int(location.length))
  }

  private mutating func add(
    _ damaged: DamagedRecord, _ number: UInt32, _ offset: Int, _ length: Int
  ) {
    replacements[damaged.segment, default: []].append((damaged, number, offset, length))
  }

  /// How many records have a replacement.
  var count: Int { replacements.values.reduce(0) { $0 + $1.count } }

  /// Names the replacements in repairs; the segments must be durable. What can be read again is no longer
  /// remembered as damaged.
  func publish(_ collection: String) throws(StrobeError) -> [DamagedRecord] {
    let ids = segments.ids
    var healed: [DamagedRecord] = []
    for (segment, list) in replacements {
      let old = try readable(segment)
      let new = list.map {
        Repairs.Replacement(
          damagedOffset: $0.damaged.offset, segment: ids[Int($0.number)], offset: $0.offset,
          length: $0.length)
      }
      try old.adding(new, to: segment).write(store, segment)
      let reader = ChunkReader(store, secret, segments: [segment])
      for entry in list {
        let content = AlignedBuffer(count: entry.damaged.contentLength)
        if unsafe reader.readReplacement(
          of: entry.damaged.location, fingerprint: entry.damaged.fingerprint,
          into: content.bytes)
        {
          healed.append(entry.damaged)
        }
      }
    }
    try VerificationRecord.update(store, collection) { $0.remove(healed) }
    return healed
  }

  /// The repairs that are there; damaged ones are written anew.
  private func readable(_ segment: ObjectID) throws(StrobeError) -> Repairs {
    do throws(StrobeError) {
      return try Repairs.read(store, segment) ?? Repairs(segment, [])
    } catch {
      guard error.isDamage else { throw error }
      return Repairs(segment, [])
    }
  }
}
