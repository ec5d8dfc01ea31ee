import ChangeDetection
import Glibc
import Platform
import SnapshotRepository

// Verification of points of one collection:
//
//   documents → layers, every group → what is needed of each segment → records, segment by segment
//
// Segments that were read back longest ago come first; what was read back is written down from time to time, so
// that a verification that ends early is continued by the next.
//
// Nothing is held meanwhile. A record that fails was perhaps freed because its points are gone: before it counts as
// damage it is looked for again in the points that are there then. A layer that vanishes was merged: the walk
// begins anew, without the segments that it had read back: a garbage collection each hour must not keep a
// verification that takes a day from its end.

/// How much is verified.
public struct VerifyOptions: Sendable {
  /// The share of the content that is read back, chosen at random, from 0 to 1; nil: all.
  public var sample: Double?
  /// Seconds after which no further segment is begun; nil: none.
  public var maxSeconds: Double?
  /// Threads; nil: one a processor.
  public var workerCount: Int?

  public init() {}
}

struct CollectionVerification {
  /// Restarts in a row between which no segment was read back.
  private static let restartLimit = 10

  let engine: SnapshotEngine
  let collection: String
  let options: VerifyOptions
  /// CLOCK_MONOTONIC in seconds after which no further segment is begun.
  let deadline: Double?
  let progress: Progress
  let stop: CancellationFlag

  private let readBack = ReadBack()

  private var store: any ObjectStore { engine.repository.store }

  /// Verifies all points.
  func run(_ report: inout VerifyReport) throws(StrobeError) {
    var (restarts, known) = (0, 0)
    while true {
      var found = VerifyReport()
      do throws(StrobeError) {
        let index = try engine.loadIndex(collection)
        for error in index.unreadable {
          found.damage.append(Damage(points: [collection], disk: nil, range: nil, error: error))
        }
        if !index.points.isEmpty || !index.unreadable.isEmpty { checkRecord(&found) }
        try verify(index.points.map(\.id), all: true, &found)
        report.add(found)
        report.add(readBack.report)
        return
      } catch {
        restarts = readBack.segments.count > known ? 1 : restarts + 1
        known = readBack.segments.count
        guard error.reason == .notFound, restarts <= Self.restartLimit else { throw error }
      }
      // Whoever merges may be at it for a while.
      for _ in 0..<(1 << restarts) {
        try stop.check()
        usleep(2000)
      }
    }
  }

  /// Verifies one point, which is held.
  func run(point id: String, _ report: inout VerifyReport) throws(StrobeError) {
    let lock = try store.hold(RestorePoint.objectName(collection, id))
    defer { lock.release() }
    try verify([id], all: false, &report)
    report.add(readBack.report)
  }

  private func checkRecord(_ report: inout VerifyReport) {
    do throws(StrobeError) {
      _ = try CollectionRecord.read(store, collection)
    } catch {
      report.damage.append(Damage(points: [collection], disk: nil, range: nil, error: error))
    }
  }

  private func verify(
    _ ids: [String], all: Bool, _ report: inout VerifyReport
  ) throws(StrobeError) {
    var groups: [String: VerifiedPoints] = [:]
    var order: [String] = []
    for id in ids {
      try stop.check()
      do throws(StrobeError) {
        let point = try RestorePoint.read(store, collection, id)
        report.pointCount += 1
        if groups[point.fingerprintSecret] == nil {
          order.append(point.fingerprintSecret)
          groups[point.fingerprintSecret] = VerifiedPoints(point)
        }
        groups[point.fingerprintSecret]?.facts.append(PointFacts(point))
      } catch {
        if error.reason == .notFound { continue }
        guard error.isUnreadable || error.reason == .newerVersion else {
          throw error
        }
        report.damage.append(
          Damage(points: [name(id)], disk: nil, range: nil, error: error))
      }
    }
    var segments: Set<ObjectID> = []
    for key in order {
      guard let group = groups[key] else { continue }
      segments.formUnion(try verify(group, all: all, &report))
    }
    // A document that can't be read may have any layer.
    if all && !report.damage.contains(where: { $0.disk == nil }) {
      let layers = groups.values.reduce(into: Set<ObjectID>()) { layers, group in
        for disk in CollectionHistory(name: collection, group.facts).disks {
          layers.formUnion(disk.layers)
        }
      }
      writeDown(&report) { $0.keep(layers: layers) }
    }
    let isGood = report.damage.isEmpty && readBack.report.damage.isEmpty
    if all && options.sample == nil && isGood {
      writeDown(&report) { $0.keep(segments) }
    }
  }

  private func name(_ id: String) -> String { "\(collection)@\(id.prefix(12))" }

  /// Verifies points that share a key.
  ///
  /// - Returns: the segments that their layers name.
  private func verify(
    _ points: VerifiedPoints, all: Bool, _ report: inout VerifyReport
  ) throws(StrobeError) -> [ObjectID] {
    let history = CollectionHistory(name: collection, points.facts)
    let disks = try checkLayers(history, &report)
    if all, let last = history.points.last?.sequence {
      writeDown(&report) { $0.note(sequence: last) }
    }
    let seed = options.sample.map { (share: $0, seed: UInt64.random(in: 0 ... .max)) }
    let needed = NeededRecords(store: store, disks: disks, sample: seed, stop: stop)
    let record = try VerificationRecord.read(store, collection)
    let allNeeds = try needed.needs(record)
    report.segmentCount += allNeeds.count
    let needs = allNeeds.filter { !readBack.segments.contains($0.id) }.sorted {
      ($0.checked?.nanoseconds ?? .min, $0.id.description) < (
        $1.checked?.nanoseconds ?? .min, $1.id.description
      )
    }
    progress.expectMore(needs.reduce(0) { $0 + $1.contentBytes })
    var next = 0
    while next < needs.count {
      // At least one, so that ever so little time comes to an end some day.
      if next > 0, let deadline, monotonicSeconds() >= deadline {
        report.isCutShort = true
        break
      }
      let batch = Self.batch(needs, from: next, bytes: deadline == nil ? 8 << 30 : 1)
      next += batch.count
      try check(batch, needed, history, points, all: all, &report)
    }
    return allNeeds.map(\.id)
  }

  /// As many segments as fit the memory and `limit` bytes of content, at least one.
  private static func batch(
    _ needs: [SegmentNeed], from first: Int, bytes limit: Int
  ) -> [SegmentNeed] {
    var batch: [SegmentNeed] = []
    var count = 0
    var bytes = 0
    for need in needs[first...] {
      if !batch.isEmpty && (count + need.recordCount > NeededRecords.limit || bytes >= limit) {
        break
      }
      batch.append(need)
      count += need.recordCount
      bytes += need.contentBytes
    }
    return batch
  }

  private func check(
    _ batch: [SegmentNeed], _ needed: NeededRecords, _ history: CollectionHistory,
    _ points: VerifiedPoints, all: Bool, _ report: inout VerifyReport
  ) throws(StrobeError) {
    let start = Timestamp.now
    let ids = batch.map(\.id)
    let records = try needed.records(of: ids)
    let count = records.reduce(0) { $0 + $1.count }
    let check = RecordCheck(
      store, points.secret, chunkSize: points.chunkSize, segments: ids, records: records,
      progress: progress, stop: stop)
    var failures = try check.run(workerCount: options.workerCount)
    if all && !failures.isEmpty { failures = try stillNeeded(failures) }
    let damage = try DamageReport(store: store, history: history, disks: needed.disks).damage(
      of: failures, chunkSize: points.chunkSize)
    readBack.report.checkedChunks += count
    readBack.report.checkedSegments += ids.count
    readBack.report.damage += damage
    readBack.segments.formUnion(ids)
    let damaged = failures.map {
      DamagedRecord(
        disk: needed.disks[Int($0.record.disk)].name, position: $0.record.position,
        segment: $0.segment, offset: $0.record.offset, length: Int($0.record.length),
        contentLength: Int($0.record.contentLength), fingerprint: $0.record.fingerprint,
        found: start)
    }
    let isWhole = all && options.sample == nil
    writeDown(&report) { record in
      if isWhole {
        // What was damaged and is good now was healed, or put right below.
        let fresh = Set(damaged.map(\.key))
        let checked = Set(ids)
        record.remove(
          record.damage.filter { checked.contains($0.segment) && !fresh.contains($0.key) })
        for id in ids { record.note(id, checked: start) }
      }
      record.add(damaged)
    }
  }

  /// Remembers what was found; a repository that can't be written to is verified all the same.
  private func writeDown(
    _ report: inout VerifyReport, _ change: (inout VerificationRecord) -> Void
  ) {
    do throws(StrobeError) {
      try VerificationRecord.update(store, collection, change)
    } catch {
      let warning = "what was found could not be written down: \(error.message)"
      if !report.warnings.contains(warning) { report.warnings.append(warning) }
    }
  }

  /// Those of the failures that some point that is there now needs.
  private func stillNeeded(
    _ failures: [RecordCheck.Failure]
  ) throws(StrobeError) -> [RecordCheck.Failure] {
    var facts: [PointFacts] = []
    for summary in try engine.loadIndex(collection).points {
      do throws(StrobeError) {
        facts.append(PointFacts(try RestorePoint.read(store, collection, summary.id)))
      } catch {
        guard error.reason == .notFound || error.isUnreadable else { throw error }
      }
    }
    let disks = CollectionHistory(name: collection, facts).disks.map { disk in
      disk.keeping { (try? LayerReader(store, $0)) != nil }
    }
    let now = NeededRecords(store: store, disks: disks, sample: nil, stop: stop)
    let segments = Array(Set(failures.map(\.segment)))
    var needed: Set<String> = []
    for (place, records) in try now.records(of: segments).enumerated() {
      for record in records { needed.insert("\(segments[place]) \(record.offset)") }
    }
    return failures.filter { needed.contains("\($0.segment) \($0.record.offset)") }
  }

  /// Reads every group of every layer.
  ///
  /// - Returns: the disks with the points whose layers are all good.
  private func checkLayers(
    _ history: CollectionHistory, _ report: inout VerifyReport
  ) throws(StrobeError) -> [DiskHistory] {
    var disks: [DiskHistory] = []
    for disk in history.disks {
      var bad: Set<ObjectID> = []
      for (place, id) in disk.layers.enumerated() {
        try stop.check()
        do throws(StrobeError) {
          try LayerReader(store, id).checkAllGroups(stop)
        } catch {
          guard
            error.isDamage || error.reason == .notFound || error.errno == EIO
              || error.reason == .newerVersion
          else { throw error }
          let names = disk.links.filter { $0.chain.contains(place) }.map {
            name(history.points[$0.point].id)
          }
          // Merged away: the points name others now.
          if error.reason == .notFound, try !isNamedNow(id, disk.name) { throw error }
          bad.insert(id)
          report.damage.append(
            Damage(points: names, disk: disk.name, range: nil, error: error))
        }
      }
      writeDown(&report) { $0.note(layers: disk.layers, damaged: bad, at: .now) }
      disks.append(bad.isEmpty ? disk : disk.keeping { !bad.contains($0) })
    }
    return disks
  }

  private func isNamedNow(_ layer: ObjectID, _ disk: String) throws(StrobeError) -> Bool {
    for summary in try engine.loadIndex(collection).points {
      guard let point = try? RestorePoint.read(store, collection, summary.id) else { continue }
      let named = point.disks.first { $0.name == disk }?.layerIDs ?? []
      if named.contains(layer) { return true }
    }
    return false
  }
}

/// What a verification has read back so far, however often it begins its walk anew.
private final class ReadBack {
  var segments: Set<ObjectID> = []
  /// Of their content.
  var report = VerifyReport()
}

/// Points with one key.
private struct VerifiedPoints {
  let secret: FingerprintSecret
  let chunkSize: Int
  var facts: [PointFacts] = []

  init(_ point: RestorePoint) {
    guard let secret = point.secret else {
      preconditionFailure("a point that was read has a secret")
    }
    self.secret = secret
    chunkSize = point.chunkSize
  }
}
