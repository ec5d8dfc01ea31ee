import BlockDevices
import Glibc
public import Platform
import SnapshotRepository

/// What a healing came to, for one collection.
public struct HealReport: Sendable {
  public let collection: String
  /// Damaged chunks that were known.
  public let damagedChunks: Int
  /// Those of them that can be read again.
  public let healedChunks: Int
  /// Damaged layers that were known, and those of them that are whole again.
  public let damagedLayers: Int
  public let healedLayers: Int
  public var warnings: [String]
}

extension SnapshotEngine {
  /// Stores damaged chunks again that are known from a verification. Older points that share them are whole
  /// again.
  ///
  /// - Parameters:
  ///   - collection: nil: all collections.
  ///   - other: the directory of a repository with a copy of the collection; nil: the disks that the
  ///     collection remembers, as far as they still hold the same content at the same place.
  /// - Throws: `notFound` when the other repository has no copy, `busy` when a snapshot of the collection runs.
  public func heal(
    _ collection: String? = nil, from other: String? = nil,
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> [HealReport] {
    let from: Repository? =
      if let other { try Repository.open(at: absolutePath(other)) } else { nil }
    var reports: [HealReport] = []
    for name in try names(collection) {
      _ = try loadIndex(name)
      reports.append(try heal(collection: name, from, stop))
    }
    return reports
  }

  private func heal(
    collection name: String, _ other: Repository?, _ stop: CancellationFlag
  ) throws(StrobeError) -> HealReport {
    let store = repository.store
    let known = try VerificationRecord.read(store, name)
    let damage = known.damage
    guard !damage.isEmpty || !known.damagedLayerIDs.isEmpty else {
      return HealReport(
        collection: name, damagedChunks: 0, healedChunks: 0, damagedLayers: 0, healedLayers: 0,
        warnings: [])
    }
    let lock = try repository.lockWriter(of: name, note: LockNote("heal", of: name).description)
    defer { lock.release() }
    let record = try CollectionRecord.read(store, name)
    guard let secret = record.secret else { preconditionFailure("a collection has a secret") }
    let pass = PassID()
    let registration = try PassRegistration.begin(
      store, pass, note: LockNote("heal", of: name).description)
    defer { registration.release() }
    let segments = SegmentWriter(store, pass)
    var writer = RecordWriter(store, secret, segments)
    var warnings: [String] = []
    var healedLayers: [ObjectID] = []
    do throws(StrobeError) {
      if let other {
        let healing = try RepositoryHealing(other, record, stop)
        healedLayers = try healing.heal(layers: known.damagedLayerIDs, store)
        try healing.heal(damage, &writer)
      } else {
        warnings = try healFromSources(record, damage, &writer, stop)
      }
      try segments.finish()
      try PassRegistration.beginCommit(store, pass, registration)
    } catch {
      _ = try? PassRegistration.removeObjects(store, of: pass)
      throw error
    }
    let healed = try writer.publish(name)
    try VerificationRecord.update(store, name) { record in
      record.note(layers: healedLayers, damaged: [], at: .now)
    }
    return HealReport(
      collection: name, damagedChunks: damage.count, healedChunks: healed.count,
      damagedLayers: known.damagedLayerIDs.count, healedLayers: healedLayers.count,
      warnings: warnings)
  }

  private func healFromSources(
    _ record: CollectionRecord, _ damage: [DamagedRecord], _ writer: inout RecordWriter,
    _ stop: CancellationFlag
  ) throws(StrobeError) -> [String] {
    var warnings: [String] = []
    for disk in record.disks {
      let own = damage.filter { $0.disk == disk.name }
      guard !own.isEmpty else { continue }
      do throws(StrobeError) {
        let source = try DiskSource.open(DiskLocator(disk.source), stop: stop)
        var healing = try SourceHealing(source, chunkSize: record.chunkSize, stop: stop)
        try healing.heal(own, &writer, stop: stop)
      } catch {
        guard [.notFound, .usage, .refused, .busy].contains(error.reason) else { throw error }
        warnings.append("disk \(disk.name): \(error.message)")
      }
    }
    return warnings
  }
}
