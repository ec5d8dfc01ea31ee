import BlockDevices
import ChangeDetection
import Glibc
import Platform
import SnapshotRepository

// A snapshot pass. The order is what makes it safe:
//
//   register → journal → read and store chunks → segments durable → layers durable → commit
//   → journals removed → head tables
//
// Invariants:
// - Nothing is visible before the commit; after it nothing can be lost by a crash.
// - The parent is held against deletion until the commit, so that its layers stay.
// - What a pass stored that fails or is killed before its commit stays for the next, which finds it by the
//   journal (`PassJournal.swift`) and stores nothing of it again. Layers are removed: by the pass itself, or
//   by the next.

/// What a pass is about.
struct PassContext {
  let repository: Repository
  let collection: CollectionRecord
  let plans: [DiskPlan]
  let parent: RestorePoint?
  let sequence: Int
  let options: SnapshotOptions
  /// Whose the disks are.
  let owner: GuestSelection.Found
  let id = PassID()

  /// The running guest whose disks these are, or nil.
  var guest: GuestSession? {
    if case .running(let guest) = owner { guest } else { nil }
  }
}

/// One pass over the disks of a collection.
struct SnapshotPass {
  private let context: PassContext
  private let progress: Progress
  private let stop: CancellationFlag
  private let watch = WindowWatch()

  private var repository: Repository { context.repository }
  private var pass: PassID { context.id }

  init(_ context: PassContext, progress: Progress, stop: CancellationFlag) {
    self.context = context
    self.progress = progress
    self.stop = stop
  }

  /// Runs the pass and commits its point.
  func run() throws(StrobeError) -> SnapshotOutcome {
    let registration = try PassRegistration.begin(
      repository.store, pass, note: LockNote("snapshot", of: context.collection.name).description)
    defer { registration.release() }
    let segments = SegmentWriter(
      repository.store, pass, rollover: context.options.segmentRollover)
    let earlier = EarlierPasses.open(repository, context.collection)
    var disks: [DiskPass] = []
    var journal: PassJournal?
    do throws(StrobeError) {
      let begun = try PassJournal(
        repository, pass, context.collection,
        disks: context.plans.map { ($0.name, $0.geometry.diskSize) })
      journal = begun
      for (plan, spool) in zip(context.plans, begun.spools) {
        disks.append(prepare(plan, segments, spool, earlier?.disk(plan.name)))
      }
      let watch = watch
      let stop = stop
      let settings = CaptureSettings(
        workerCount: context.options.workerCount, progress: progress,
        stop: CancellationFlag(external: { stop.isCancelled || watch.isLost }), watch: watch,
        scratchFolder: repository.journalFolder(context.collection.name))
      let outcome = try capture(disks, settings)
      var healing = PassHealing(repository, context.collection, segments, stop)
      for disk in disks { try healing.heal(disk) }
      try segments.finish()
      let point = try makePoint(disks, outcome, segments, earlier)
      try stop.check()
      try repository.commit(point, registration: registration)
      for disk in disks {
        disk.tracked?.count(from: point, context.collection, disk: disk.name)
      }
      let kept = context.guest?.committed() ?? []
      let healed = healing.publish()
      return SnapshotOutcome(
        point: point, isWeaker: outcome.isWeaker,
        adoptedBytes: disks.reduce(0) { $0 + $1.capture.adoptedBytes },
        warnings: outcome.warnings + kept + healed.warnings + remove(begun, earlier)
          + updateTables(point, disks, segments, earlier), healedChunks: healed.count)
    } catch {
      for disk in disks { disk.tracked?.giveBack() }
      throw abandon(
        context.guest?.givenBack(error) ?? error, journal,
        hasStored: disks.contains { $0.capture.storedBytes > 0 }, earlier)
    }
  }

  private func capture(
    _ disks: [DiskPass], _ settings: CaptureSettings
  ) throws(StrobeError) -> CaptureOutcome {
    if let guest = context.guest {
      let capture = GuestCapture(disks, guest, context, settings)
      try capture.run()
      return capture.outcome
    }
    let capture = PointCapture(disks, context, settings)
    try capture.run()
    var outcome = capture.outcome
    if case .atRest(let guest) = context.owner {
      try guest.checkIsOff()
      outcome.machine = guest.machine
      if context.options.freezing == .guest {
        outcome.isWeaker = true
        outcome.reasons.append("the guest is off: nobody could freeze it")
      }
    }
    return outcome
  }

  /// Removes the journals, which the point has made useless.
  private func remove(_ journal: PassJournal, _ earlier: EarlierPasses?) -> [String] {
    var failures = earlier?.remove() ?? []
    do throws(StrobeError) { try journal.remove() } catch { failures.append(error) }
    return failures.map { "a journal was not removed: \($0.message)" }
  }

  private func prepare(
    _ plan: DiskPlan, _ segments: SegmentWriter, _ spool: PassSpool, _ earlier: EarlierDisk?
  ) -> DiskPass {
    guard let secret = context.collection.secret else {
      preconditionFailure("a collection has a secret")
    }
    let disk = DiskPass(
      plan,
      DiskCapture(
        geometry: plan.geometry, secret: secret, parent: plan.parent, segments: segments,
        spool: spool, earlier: earlier, progress: progress))
    disk.isIdleByWord = context.options.idleDisks.contains(plan.name)
    return disk
  }

  private func makePoint(
    _ disks: [DiskPass], _ outcome: CaptureOutcome, _ segments: SegmentWriter,
    _ earlier: EarlierPasses?
  ) throws(StrobeError) -> RestorePoint {
    var records: [DiskRestorePoint] = []
    for (index, disk) in disks.enumerated() {
      records.append(try writeLayers(index, disk, assembly(disk, segments, earlier)))
    }
    return RestorePoint(
      id: pass.description, collection: context.collection, sequence: context.sequence,
      parent: context.parent?.id, created: outcome.instant, finished: .now,
      consistency: outcome.level, consistencyReasons: outcome.reasons,
      freezeWindowMilliseconds: outcome.windowMilliseconds,
      frozen: outcome.frozen.isEmpty ? nil : outcome.frozen,
      hooks: outcome.hooks.isEmpty ? nil : outcome.hooks, machine: outcome.machine,
      disks: records,
      writer: "strobe \(strobeVersion)")
  }

  /// Writes a disk's layer, and a keyframe below it when one is due.
  private func writeLayers(
    _ index: Int, _ disk: DiskPass, _ assembly: LayerAssembly
  ) throws(StrobeError) -> DiskRestorePoint {
    let plan = disk.plan
    let capture = disk.capture
    var layers = plan.parent?.chain.layers.map(\.header.id) ?? []
    if let chain = plan.parent?.chain,
      Keyframe.isDue(after: chain, layerLimit: context.options.keyframeLayerLimit)
    {
      let id = pass.object(UInt32(2 * index + 1))
      // A parent whose record is damaged somewhere keeps its chain: a keyframe would need all of it.
      if (try keyframe(id, of: chain)) != nil { layers = [id] }
    }
    let id = pass.object(UInt32(2 * index))
    let (changed, stored) = try assembly.writeLayer(id, stop: stop)
    layers.append(id)
    return DiskRestorePoint(
      name: plan.name, source: plan.source.path, identity: plan.source.identity.text,
      size: plan.geometry.diskSize, logicalSectorSize: plan.source.logicalSectorSize,
      changeSource: disk.isHinted ? disk.method.hint : .scan, scanReason: disk.reportedScanReason,
      cut: disk.method.kind, newChainReason: plan.newChainReason, changedChunks: changed,
      clearedChunks: changed - stored, changedBytes: capture.changedBytes,
      storedBytes: capture.storedBytes, readBytes: capture.readBytes,
      layers: layers.map(\.description))
  }

  private func keyframe(_ id: ObjectID, of chain: Chain) throws(StrobeError) -> ObjectID? {
    do throws(StrobeError) {
      try Keyframe.write(repository.store, id, of: chain, stop: stop)
      return id
    } catch {
      guard error.isUnreadable || error.reason == .notFound else { throw error }
      try repository.store.remove(id.layerName)
      return nil
    }
  }

  private func assembly(
    _ disk: DiskPass, _ segments: SegmentWriter, _ earlier: EarlierPasses?
  ) -> LayerAssembly {
    LayerAssembly(
      repository: repository, geometry: disk.geometry, changed: disk.capture.changed,
      stored: disk.capture.stored, spool: disk.capture.spool, segments: segments.ids,
      earlier: earlier)
  }

  /// Brings the head tables up to date. They are caches: a failure costs the next pass some reading.
  private func updateTables(
    _ point: RestorePoint, _ disks: [DiskPass], _ segments: SegmentWriter, _ earlier: EarlierPasses?
  ) -> [String] {
    var warnings: [String] = []
    for (index, disk) in disks.enumerated() {
      let plan = disk.plan
      warnings += (plan.parent?.damage ?? []).map { "stored again because of damage: \($0)" }
      do throws(StrobeError) {
        let ids = point.disks[index].layerIDs
        if let table = plan.parent?.table, table.geometry == plan.geometry,
          plan.parent?.damage == []
        {
          try assembly(disk, segments, earlier).update(table, to: ids[ids.count - 1])
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

  /// Removes what the next pass can't use, unless the point may be there already.
  ///
  /// - Returns: the error, with what becomes of the rest.
  private func abandon(
    _ error: StrobeError, _ journal: PassJournal?, hasStored: Bool, _ earlier: EarlierPasses?
  ) -> StrobeError {
    let name = RestorePoint.objectName(context.collection.name, pass.description)
    guard (try? repository.store.exists(name)) == false else { return error }
    _ = try? PassRegistration.removeObjects(
      repository.store, of: pass, keepingSegments: hasStored)
    if !hasStored { try? journal?.remove() }
    guard hasStored || earlier != nil else { return error }
    let kept =
      "what was stored is kept for the next run; strobe gc --drop-unfinished frees it"
    return error.explained(error.message, advice: error.advice.map { "\($0); \(kept)" } ?? kept)
  }
}

/// What a pass came to.
struct SnapshotOutcome {
  let point: RestorePoint
  let isWeaker: Bool
  let adoptedBytes: Int
  let warnings: [String]
  let healedChunks: Int
}

extension CutMethod {
  /// Who names the candidates.
  fileprivate var hint: ChangeSource {
    if case .hypervisor = self { .qemuBitmap } else { .tracked }
  }

  fileprivate var kind: CutKind {
    switch self {
    case .clone: .clone
    case .preCopy: .preCopy
    case .underFreeze: .underFreeze
    case .live: .live
    case .hypervisor: .hypervisor
    }
  }
}

extension DiskPass {
  /// Nothing needs saying where no tracker was at work, or where the chain is new anyway.
  fileprivate var reportedScanReason: String? {
    isHinted || plan.newChainReason != nil ? nil : scanReason
  }
}
