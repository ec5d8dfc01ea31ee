import BlockDevices
import ChangeDetection
import Glibc
import Platform
import SnapshotRepository

// A snapshot pass. The order is what makes it safe:
//
//   register → read and store chunks → segments durable → layers durable → commit → head tables
//
// Invariants:
// - Nothing is visible before the commit; after it nothing can be lost by a crash.
// - The parent is held against deletion until the commit, so that its layers stay.
// - A pass that fails before its commit removes what it stored; one that is killed is cleaned up after by
//   the next.

/// One pass over the disks of a collection.
struct SnapshotPass {
  let repository: Repository
  let collection: CollectionRecord
  let plans: [DiskPlan]
  let parent: RestorePoint?
  let sequence: Int
  let options: SnapshotOptions
  let progress: Progress
  let stop: CancellationFlag

  private let pass = PassID()
  private let created = Timestamp.now

  init(
    _ repository: Repository, _ collection: CollectionRecord, plans: [DiskPlan],
    parent: RestorePoint?, sequence: Int, options: SnapshotOptions, progress: Progress,
    stop: CancellationFlag
  ) {
    self.repository = repository
    self.collection = collection
    self.plans = plans
    self.parent = parent
    self.sequence = sequence
    self.options = options
    self.progress = progress
    self.stop = stop
  }

  /// Runs the pass and commits its point.
  ///
  /// - Returns: the point, and what went wrong with nothing but caches.
  func run() throws(StrobeError) -> (point: RestorePoint, warnings: [String]) {
    let registration = try PassRegistration.begin(
      repository.store, pass, note: "snapshot of \(collection.name) (process \(getpid()))")
    defer { registration.release() }
    let segments = SegmentWriter(repository.store, pass, rollover: options.segmentRollover)
    do throws(StrobeError) {
      let assessment = try ConsistencyAssessment(plans)
      progress.expect(plans.reduce(0) { $0 + $1.geometry.diskSize })
      var scans: [DiskScan] = []
      for plan in plans { scans.append(try scan(plan, segments)) }
      let (level, reasons) = try assessment.finish()
      try segments.finish()
      var disks: [DiskRestorePoint] = []
      for index in plans.indices { disks.append(try writeLayers(index, scans[index], segments)) }
      let point = RestorePoint(
        id: pass.description, collection: collection, sequence: sequence, parent: parent?.id,
        created: created, finished: .now, consistency: level, consistencyReasons: reasons,
        freezeWindowMilliseconds: nil, disks: disks, writer: "strobe \(strobeVersion)")
      try stop.check()
      try repository.commit(point, registration: registration)
      return (point, updateTables(point, scans, segments))
    } catch {
      abandon()
      throw error
    }
  }

  private func scan(_ plan: DiskPlan, _ segments: SegmentWriter) throws(StrobeError) -> DiskScan {
    guard let secret = collection.secret else { preconditionFailure("a collection has a secret") }
    let scan = DiskScan(
      source: plan.source, geometry: plan.geometry, secret: secret, parent: plan.parent,
      segments: segments, spool: try PassSpool(in: repository.journalFolder(collection.name)),
      progress: progress, stop: stop)
    let memory = ScanMemory(chunkSize: plan.geometry.chunkSize)
    try onWorkers(memory.workers(asked: options.workerCount), stop: stop) { _ throws(StrobeError) in
      var worker = try ScanWorker(scan, memory)
      try worker.run()
    }
    return scan
  }

  /// Writes a disk's layer, and a keyframe below it when one is due.
  private func writeLayers(
    _ index: Int, _ scan: DiskScan, _ segments: SegmentWriter
  ) throws(StrobeError) -> DiskRestorePoint {
    let plan = plans[index]
    var layers = plan.parent?.chain.layers.map(\.header.id) ?? []
    if let chain = plan.parent?.chain,
      Keyframe.isDue(after: chain, layerLimit: options.keyframeLayerLimit)
    {
      let id = pass.object(UInt32(2 * index + 1))
      // A parent whose record is damaged somewhere keeps its chain: a keyframe would need all of it.
      if (try keyframe(id, of: chain)) != nil { layers = [id] }
    }
    let id = pass.object(UInt32(2 * index))
    let (changed, stored) = try assembly(plan, scan, segments).writeLayer(id, stop: stop)
    layers.append(id)
    return DiskRestorePoint(
      name: plan.name, source: plan.source.path, identity: plan.source.identity.text,
      size: plan.geometry.diskSize, logicalSectorSize: plan.source.logicalSectorSize,
      changeSource: .scan, newChainReason: plan.newChainReason, changedChunks: changed,
      clearedChunks: changed - stored, changedBytes: scan.changedBytes,
      storedBytes: scan.storedBytes,
      readBytes: scan.readBytes, layers: layers.map(\.description))
  }

  private func keyframe(_ id: ObjectID, of chain: Chain) throws(StrobeError) -> ObjectID? {
    do throws(StrobeError) {
      try Keyframe.write(repository.store, id, of: chain, stop: stop)
      return id
    } catch {
      guard error.isDamage || error.reason == .notFound else { throw error }
      try repository.store.remove(id.layerName)
      return nil
    }
  }

  private func assembly(_ plan: DiskPlan, _ scan: DiskScan, _ segments: SegmentWriter)
    -> LayerAssembly
  {
    LayerAssembly(
      repository: repository, geometry: plan.geometry, changed: scan.changed, stored: scan.stored,
      spool: scan.spool, segments: segments.ids)
  }

  /// Brings the head tables up to date. They are caches: a failure costs the next pass some reading.
  private func updateTables(
    _ point: RestorePoint, _ scans: [DiskScan], _ segments: SegmentWriter
  ) -> [String] {
    var warnings: [String] = []
    for index in plans.indices {
      let plan = plans[index]
      warnings += (plan.parent?.damage ?? []).map { "stored again because of damage: \($0)" }
      do throws(StrobeError) {
        let ids = point.disks[index].layerIDs
        if let table = plan.parent?.table, table.geometry == plan.geometry,
          plan.parent?.damage == []
        {
          try assembly(plan, scans[index], segments).update(table, to: ids[ids.count - 1])
        } else {
          let chain = try Chain(repository.store, layers: ids, geometry: plan.geometry)
          try LayerAssembly.makeTable(plan.tablePath, of: chain)
        }
      } catch {
        warnings.append("the head table of disk \(plan.name) was not updated: \(error.message)")
      }
    }
    return warnings
  }

  /// Removes what was stored, unless the point may be there already.
  private func abandon() {
    let name = RestorePoint.objectName(collection.name, pass.description)
    guard (try? repository.store.exists(name)) == false else { return }
    _ = try? PassRegistration.removeObjects(repository.store, of: pass)
  }
}
