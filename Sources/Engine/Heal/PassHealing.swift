import ChangeDetection
import Platform
import SnapshotRepository

/// Heals what a snapshot meets: damaged records whose content is still at its place on the disk.
struct PassHealing: ~Copyable {
  private let collection: String
  private let stop: CancellationFlag
  private let damage: [DamagedRecord]
  private var writer: RecordWriter

  init(
    _ repository: Repository, _ collection: CollectionRecord, _ segments: SegmentWriter,
    _ stop: CancellationFlag
  ) {
    guard let secret = collection.secret else {
      preconditionFailure("a collection has a secret")
    }
    self.collection = collection.name
    self.stop = stop
    // What can't be read keeps nobody from taking a point.
    damage = (try? VerificationRecord.read(repository.store, collection.name))?.damage ?? []
    writer = RecordWriter(repository.store, secret, segments)
  }

  /// Looks for the damaged records of one disk: among what the pass stored, then on the disk itself.
  mutating func heal(_ disk: DiskPass) throws(StrobeError) {
    var missing: [DamagedRecord] = []
    for record in damage where record.disk == disk.name {
      if let location = location(of: record, in: disk) {
        writer.use(location, for: record)
      } else {
        missing.append(record)
      }
    }
    guard !missing.isEmpty else { return }
    var source = try SourceHealing(
      disk.plan.source, chunkSize: disk.geometry.chunkSize, stop: stop)
    try source.heal(missing, &writer, stop: stop)
  }

  /// Where the pass stored the same content at the same position.
  private func location(
    of record: DamagedRecord, in disk: DiskPass
  ) -> ChunkLocation? {
    guard record.position < disk.geometry.chunkCount,
      disk.geometry.length(of: record.position) == record.contentLength,
      disk.capture.stored[record.position],
      let entry = disk.capture.spool.entry(at: record.position),
      entry.fingerprint == record.fingerprint, !EarlierPasses.isTakenOver(entry.location.segment)
    else { return nil }
    return entry.location
  }

  /// After the commit: names what was stored.
  func publish() -> (count: Int, warnings: [String]) {
    guard writer.count > 0 else { return (0, []) }
    do throws(StrobeError) {
      return (try writer.publish(collection).count, [])
    } catch {
      return (0, ["damaged chunks were stored again, but not named: \(error.message)"])
    }
  }
}
