import ChangeDetection
import Platform
import SnapshotRepository

/// Verifies points one after another, oldest first, reading only what the one before didn't have.
struct VerifyWalk {
  private let engine: SnapshotEngine
  private let workerCount: Int?
  private let progress: Progress
  private let stop: CancellationFlag
  /// The chains of the last point, by disk.
  private var last: [String: Chain] = [:]
  /// Damaged chunks that the last point has.
  private var known: [KnownDamage] = []

  /// A damaged chunk and its place in the report.
  private struct KnownDamage {
    let disk: String
    let position: Int
    let segment: ObjectID
    let location: ChunkLocation
    let index: Int
  }

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
      // Deleted since the list was read, or being deleted.
      if error.reason == .notFound || error.reason == .busy { return }
      guard error.isDamage || error.errno != 0 else { throw error }
      report.damage.append(Damage(points: [name], disk: nil, range: nil, error: error))
    }
  }

  private mutating func verify(
    _ disk: DiskRestorePoint, _ point: RestorePoint, _ name: String, into report: inout VerifyReport
  ) throws(StrobeError) -> Chain? {
    guard let secret = point.secret else {
      preconditionFailure("a point that was read has a secret")
    }
    do throws(StrobeError) {
      let chain = try engine.chain(point, disk)
      let pass = VerifyPass(engine.repository, secret, disk, chain, progress: progress, stop: stop)
      try inherit(disk.name, chain, name, into: &report)
      let found = try pass.run(since: last[disk.name], workerCount: workerCount)
      report.checkedChunks += pass.checkedChunks + found.count
      for (position, error) in found {
        let offset = chain.geometry.offset(of: position)
        let range = offset..<(offset + chain.geometry.length(of: position))
        try remember(disk.name, chain, position, index: report.damage.count)
        report.damage.append(
          Damage(points: [name], disk: disk.name, range: range, error: error))
      }
      return chain
    } catch {
      guard error.reason != .cancelled else { throw error }
      report.damage.append(Damage(points: [name], disk: disk.name, range: nil, error: error))
      // The next point is read whole.
      return nil
    }
  }

  /// Notes where a damaged chunk is, to tell which later points share it.
  private mutating func remember(
    _ disk: String, _ chain: Chain, _ position: Int, index: Int
  ) throws(StrobeError) {
    let group = position / ChunkGeometry.chunksPerGroup
    let location = try chain.resolved(group: group).location(
      position % ChunkGeometry.chunksPerGroup)
    known.append(
      KnownDamage(
        disk: disk, position: position, segment: chain.segments[Int(location.segment)],
        location: location, index: index))
  }

  /// Adds this point to the damage that it shares with the one before, and forgets the rest.
  private mutating func inherit(
    _ disk: String, _ chain: Chain, _ point: String, into report: inout VerifyReport
  ) throws(StrobeError) {
    var kept: [KnownDamage] = []
    for damage in known {
      guard damage.disk == disk else {
        kept.append(damage)
        continue
      }
      guard damage.position < chain.geometry.chunkCount else { continue }
      let index = damage.position % ChunkGeometry.chunksPerGroup
      let map = try chain.resolved(group: damage.position / ChunkGeometry.chunksPerGroup)
      let location = map.location(index)
      guard map.isStored(index), location.offset == damage.location.offset,
        chain.segments[Int(location.segment)] == damage.segment
      else { continue }
      report.damage[damage.index].points.append(point)
      kept.append(damage)
    }
    known = kept
  }
}
