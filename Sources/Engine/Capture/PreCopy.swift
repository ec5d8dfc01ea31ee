import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository

// Pre-copy: copy while the disks are in use, then what changed meanwhile, again, until so little is left
// that reading it at the cut takes no time worth mentioning.

/// The live rounds over the tracked disks of a pass.
struct PreCopy {
  /// Rounds after the first, before the cut is made with what is left.
  private static let roundLimit = 8
  /// Bytes that may be left for the cut: what is read in some milliseconds.
  static let goal = 4 << 20

  let disks: [DiskPass]
  let parent: RestorePoint?
  let collection: CollectionRecord
  let settings: CaptureSettings

  /// The first round: what the trackers name, or everything.
  ///
  /// - Returns: what the reader should know.
  func copy() throws(StrobeError) -> [String] {
    var warnings: [String] = []
    for disk in disks {
      guard let tracked = disk.tracked else { continue }
      var candidates: ChunkBitmap? = tracked.exchange(disk.geometry)
      disk.scanReason = tracked.doubt(of: disk.plan, parent: parent, collection: collection)
      if disk.scanReason != nil { candidates = nil }
      if let hinted = candidates, let lie = try audit(disk, tracked, hinted) {
        warnings.append(lie)
        candidates = nil
      }
      disk.isHinted = candidates != nil
      settings.progress.expectMore(
        candidates.map(disk.capture.byteCount(of:)) ?? disk.geometry.diskSize)
      try disk.run(candidates: candidates, settings)
    }
    return warnings
  }

  /// - Returns: what is wrong with the tracker, which is stopped then.
  private func audit(
    _ disk: DiskPass, _ tracked: TrackedDisk, _ hinted: ChunkBitmap
  ) throws(StrobeError) -> String? {
    let audit = TrackerAudit(disk: tracked, plan: disk.plan, capture: disk.capture)
    guard let position = try audit.findLie(besides: hinted, stop: settings.stop) else { return nil }
    let reason =
      "the tracker missed a write to \(disk.plan.source.path) at byte "
      + "\(disk.geometry.offset(of: position)): something writes past it"
    try tracked.drop()
    disk.scanReason = reason
    // What was missed once may be missed while it is copied.
    disk.method = .underFreeze
    return "disk \(disk.name): \(reason); the tracker was stopped and the whole disk is read"
  }

  /// Copies again what was written meanwhile, until little is left or it stops shrinking. What is left
  /// is then `pending` in each disk.
  func catchUp() throws(StrobeError) {
    var last = Int.max
    for _ in 0..<Self.roundLimit {
      let left = takeMarks()
      if left <= Self.goal { return }
      for disk in disks where disk.tracked != nil { try copyPending(disk) }
      if left > last / 4 * 3 { return }
      last = left
    }
  }

  /// Moves the marks of all tracked disks to what is pending.
  ///
  /// - Returns: bytes that are pending.
  @discardableResult
  func takeMarks() -> Int {
    var left = 0
    for disk in disks {
      guard let tracked = disk.tracked else { continue }
      disk.pending.formUnion(tracked.exchange(disk.geometry))
      left += disk.capture.byteCount(of: disk.pending)
    }
    return left
  }

  private func copyPending(_ disk: DiskPass) throws(StrobeError) {
    let bytes = disk.capture.byteCount(of: disk.pending)
    guard bytes > 0 else { return }
    settings.progress.expectMore(bytes)
    try disk.run(candidates: disk.pending, settings)
    disk.pending.removeAll()
  }
}
