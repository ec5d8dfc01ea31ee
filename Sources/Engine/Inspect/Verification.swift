import ChangeDetection
public import Platform
import SnapshotRepository

/// Something that is not what was stored.
public struct Damage: Sendable {
  /// The oldest point that was found to need it; later points may share it.
  public let point: String
  /// Nil when it is the point's own document.
  public let disk: String?
  /// Bytes of the disk that are affected; nil when it isn't known which.
  public let range: Range<Int>?
  /// Names the object, what was expected and what was found.
  public let error: StrobeError
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
        report.damage.append(Damage(point: name, disk: nil, range: nil, error: error))
      }
      var walk = VerifyWalk(self, workerCount: workerCount, progress: progress, stop: stop)
      for summary in index.points { try walk.verify(name, summary.id, into: &report) }
    }
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
    report.checkedBytes = progress.transferred
    report.seconds = monotonicSeconds() - start
    return report
  }

  private func verifyRecord(_ name: String, into report: inout VerifyReport) {
    do throws(StrobeError) {
      _ = try CollectionRecord.read(repository.store, name)
    } catch {
      report.damage.append(Damage(point: name, disk: nil, range: nil, error: error))
    }
  }
}

/// Verifies points one after another, oldest first, reading only what the one before didn't have.
private struct VerifyWalk {
  private let engine: SnapshotEngine
  private let workerCount: Int?
  private let progress: Progress
  private let stop: CancellationFlag
  /// The chains of the last point, by disk.
  private var last: [String: Chain] = [:]

  init(_ engine: SnapshotEngine, workerCount: Int?, progress: Progress, stop: CancellationFlag) {
    self.engine = engine
    self.workerCount = workerCount
    self.progress = progress
    self.stop = stop
  }

  mutating func verify(
    _ collection: String, _ id: String, into report: inout VerifyReport
  ) throws(StrobeError) {
    let name = "\(collection)@\(id.prefix(12))"
    do throws(StrobeError) {
      let (point, lock) = try engine.repository.hold(collection, id)
      defer { lock.release() }
      var chains: [String: Chain] = [:]
      for disk in point.disks { chains[disk.name] = try verify(disk, point, name, into: &report) }
      last = chains
      report.pointCount += 1
    } catch {
      // Deleted since the list was read.
      if error.reason == .notFound { return }
      guard error.isDamage || error.errno != 0 else { throw error }
      report.damage.append(Damage(point: name, disk: nil, range: nil, error: error))
    }
  }

  private func verify(
    _ disk: DiskRestorePoint, _ point: RestorePoint, _ name: String, into report: inout VerifyReport
  ) throws(StrobeError) -> Chain? {
    guard let secret = point.secret else {
      preconditionFailure("a point that was read has a secret")
    }
    do throws(StrobeError) {
      let chain = try engine.chain(point, disk)
      let pass = VerifyPass(engine.repository, secret, disk, chain, progress: progress, stop: stop)
      let found = try pass.run(since: last[disk.name], workerCount: workerCount)
      report.checkedChunks += pass.checkedChunks + found.count
      for (position, error) in found {
        let offset = chain.geometry.offset(of: position)
        report.damage.append(
          Damage(
            point: name, disk: disk.name,
            range: offset..<(offset + chain.geometry.length(of: position)),
            error: error))
      }
      return chain
    } catch {
      guard error.reason != .cancelled else { throw error }
      report.damage.append(Damage(point: name, disk: disk.name, range: nil, error: error))
      // The next point is read whole.
      return nil
    }
  }
}
