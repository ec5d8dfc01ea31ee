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
  public var checkedChunks = 0
  /// Bytes of content that were checked.
  public var checkedBytes = 0
  public var damage: [Damage] = []
  /// Wall-clock seconds.
  public var seconds = 0.0
}

extension SnapshotEngine {
  /// Reads back and checks a collection, each stored chunk once.
  ///
  /// - Parameter collection: nil: all collections.
  /// - Throws: only for what keeps it from looking; damage is in the report.
  public func verify(
    collection: String? = nil, workerCount: Int? = nil, progress: Progress = Progress(),
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> VerifyReport {
    let start = monotonicSeconds()
    var report = VerifyReport()
    for name in try names(collection) {
      let index = try loadIndex(name)
      verifyRecord(name, into: &report)
      for error in index.unreadable {
        report.damage.append(Damage(points: [name], disk: nil, range: nil, error: error))
      }
      var walk = VerifyWalk(self, workerCount: workerCount, progress: progress, stop: stop)
      for summary in index.points { try walk.verify(name, summary.id, into: &report) }
    }
    report.damage = Damage.merged(report.damage)
    report.checkedBytes = progress.transferred
    report.seconds = monotonicSeconds() - start
    return report
  }

  /// Reads back and checks everything that one point needs.
  public func verify(
    point reference: PointReference, workerCount: Int? = nil, progress: Progress = Progress(),
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> VerifyReport {
    let start = monotonicSeconds()
    var report = VerifyReport()
    let id = try resolve(reference)
    var walk = VerifyWalk(self, workerCount: workerCount, progress: progress, stop: stop)
    try walk.verify(reference.collection, id, into: &report)
    report.damage = Damage.merged(report.damage)
    report.checkedBytes = progress.transferred
    report.seconds = monotonicSeconds() - start
    return report
  }

  private func verifyRecord(_ name: String, into report: inout VerifyReport) {
    do throws(StrobeError) {
      _ = try CollectionRecord.read(repository.store, name)
    } catch {
      report.damage.append(Damage(points: [name], disk: nil, range: nil, error: error))
    }
  }
}
