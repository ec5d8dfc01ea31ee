import ChangeDetection
public import Platform
import SnapshotRepository

/// Something that is not what was stored.
public struct Damage: Sendable {
  /// The points that need it, oldest first; a collection's name when it is the collection's own record.
  public var points: [String]
  /// Nil when it is the point's own document.
  public let disk: String?
  /// Bytes of the disk that are affected; nil when it isn't known which.
  public var range: Range<Int>?
  /// Names the object, what was expected and what was found.
  public let error: StrobeError
}

extension Damage {
  /// Joins what is one damage to the reader: neighbouring ranges of a disk, and one object that several
  /// points need.
  static func merged(_ damage: [Damage]) -> [Damage] {
    var merged: [Damage] = []
    for next in damage {
      if let last = merged.last, last.disk == next.disk, last.error.message == next.error.message {
        if let before = last.range, let range = next.range, last.points == next.points,
          before.upperBound == range.lowerBound
        {
          merged[merged.count - 1].range = before.lowerBound..<range.upperBound
          continue
        }
        if last.range == nil && next.range == nil {
          merged[merged.count - 1].points += next.points.filter { !last.points.contains($0) }
          continue
        }
      }
      merged.append(next)
    }
    return merged
  }
}

/// What a verification read, and what it found.
public struct VerifyReport: Sendable {
  public var pointCount = 0
  /// Chunks that were read back.
  public var checkedChunks = 0
  /// Bytes of content that were checked.
  public var checkedBytes = 0
  /// Segments that hold something needed, and those of them that were read back.
  public var segmentCount = 0
  public var checkedSegments = 0
  /// Whether the time was over before everything was read; the next verification goes on.
  public var isCutShort = false
  public var damage: [Damage] = []
  /// What the reader should know.
  public var warnings: [String] = []
  /// Wall-clock seconds.
  public var seconds = 0.0

  mutating func add(_ other: VerifyReport) {
    pointCount += other.pointCount
    checkedChunks += other.checkedChunks
    segmentCount += other.segmentCount
    checkedSegments += other.checkedSegments
    isCutShort = isCutShort || other.isCutShort
    damage += other.damage
    warnings += other.warnings
  }
}

extension SnapshotEngine {
  /// Reads back and checks collections, each stored chunk once, those first that were checked longest ago.
  ///
  /// - Parameter collection: nil: all collections.
  /// - Throws: only for what keeps it from looking; damage is in the report.
  public func verify(
    collection: String? = nil, _ options: VerifyOptions = VerifyOptions(),
    progress: Progress = Progress(), stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> VerifyReport {
    try verify(options, progress) { (report, deadline) throws(StrobeError) in
      for name in try names(collection) {
        try CollectionVerification(
          engine: self, collection: name, options: options, deadline: deadline,
          progress: progress, stop: stop
        ).run(&report)
      }
    }
  }

  /// Reads back and checks everything that one point needs.
  public func verify(
    point reference: PointReference, _ options: VerifyOptions = VerifyOptions(),
    progress: Progress = Progress(), stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> VerifyReport {
    try verify(options, progress) { (report, deadline) throws(StrobeError) in
      let id = try resolve(reference)
      try CollectionVerification(
        engine: self, collection: reference.collection, options: options, deadline: deadline,
        progress: progress, stop: stop
      ).run(point: id, &report)
    }
  }

  private func verify(
    _ options: VerifyOptions, _ progress: Progress,
    _ body: (inout VerifyReport, Double?) throws(StrobeError) -> Void
  ) throws(StrobeError) -> VerifyReport {
    let start = monotonicSeconds()
    var report = VerifyReport()
    try body(&report, options.maxSeconds.map { start + $0 })
    report.damage = Damage.merged(report.damage)
    report.checkedBytes = progress.transferred
    report.seconds = monotonicSeconds() - start
    return report
  }

  /// The newest point of a collection of which everything was read back and found good; nil: none.
  ///
  /// - Throws: when what it needs can't be read.
  func newestVerifiedPoint(_ collection: String) throws(StrobeError) -> String? {
    let store = repository.store
    let record = try VerificationRecord.read(store, collection)
    // The layers of later points were not read.
    guard let last = record.lastSequence else { return nil }
    var layers: [ObjectID: Bool] = [:]
    for summary in try loadIndex(collection).points.reversed() where summary.sequence <= last {
      do throws(StrobeError) {
        let point = try RestorePoint.read(store, collection, summary.id)
        if try isVerified(point, record, &layers) { return summary.id }
      } catch {
        guard error.reason == .notFound || error.isUnreadable else { throw error }
      }
    }
    return nil
  }

  /// - Parameter layers: of the layers that were asked for, whether all that they name was read back.
  private func isVerified(
    _ point: RestorePoint, _ record: VerificationRecord, _ layers: inout [ObjectID: Bool]
  ) throws(StrobeError) -> Bool {
    let history = CollectionHistory(name: point.collection, [PointFacts(point)])
    for disk in history.disks {
      for layer in disk.layers {
        if layers[layer] == nil { layers[layer] = try isRead(layer, record) }
        if layers[layer] != true { return false }
      }
      var affected = AffectedPoints(disk, repository.store)
      for damage in record.damage where damage.disk == disk.name {
        let points = try affected.points(
          needing: damage.segment, offset: damage.offset, position: damage.position)
        if !points.isEmpty { return false }
      }
    }
    return true
  }

  private func isRead(_ layer: ObjectID, _ record: VerificationRecord) throws(StrobeError) -> Bool {
    if record.isDamaged(layer: layer) { return false }
    return try LayerReader(repository.store, layer).segments.allSatisfy {
      record.checked($0) != nil
    }
  }
}
