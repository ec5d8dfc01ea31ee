import BlockDevices
import ChangeDetection
import ChangeTracking
import Platform
import SnapshotRepository

// Pre-copy: copy while the disks are in use, then what changed meanwhile, again, until so little is left
// that reading it at the cut takes no time worth mentioning.

/// The live rounds over the tracked disks of a pass.
struct PreCopy {
  /// Rounds after the first, before the cut is made with what is left.
  private static let roundLimit = 16
  /// Bytes from which on what is left is stored, not only copied.
  private static let storingLimit = 1 << 30
  /// Bytes that may be left for the cut: what is read in some milliseconds.
  static let goal = 2 << 20

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
      let marks = tracked.exchange()
      var candidates: ChunkBitmap? = marks.chunks(disk.geometry)
      disk.scanReason =
        tracked.doubt(of: disk.plan, parent: parent, collection: collection)
        ?? marks.everythingReason
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
    let audit = TrackerAudit(
      disk: tracked, source: disk.plan.source, capture: disk.capture)
    guard let position = try audit.findLie(besides: hinted, stop: settings.stop) else { return nil }
    let reason =
      "the tracker missed a write to \(disk.plan.source.path) at byte "
      + "\(disk.geometry.offset(of: position)): something writes past it"
    disk.scanReason = reason
    // What was missed once may be missed while it is copied.
    disk.method = .underFreeze
    do throws(StrobeError) {
      try tracked.drop()
      return "disk \(disk.name): \(reason); the tracker was stopped and the whole disk is read"
    } catch {
      // It counts from no point any more, so nobody will believe it.
      return "disk \(disk.name): \(reason); the whole disk is read; the tracker can't be stopped: "
        + error.message
    }
  }

  /// Copies again what was written meanwhile, until little is left or it stops shrinking. What is left
  /// is then `pending` in each disk.
  ///
  /// As long as much is left and it shrinks, it is stored, like everything else. Then it is only copied
  /// (``LiveScratch``), which is quick enough to catch up with a busy writer.
  func catchUp() throws(StrobeError) {
    var last = Int.max
    for _ in 0..<Self.roundLimit {
      let left = takeMarks()
      if left <= Self.goal { return }
      let isShrinking = left < last / 4 * 3
      if !isShrinking && left <= Remainder.limit / 2 { return }
      for disk in disks {
        guard let marks = disk.pending else { continue }
        if left > Self.storingLimit && isShrinking {
          try store(marks, of: disk)
        } else {
          try copy(marks, of: disk)
        }
        disk.pending = nil
      }
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
      let marks = tracked.exchange()
      if let pending = disk.pending { pending.formUnion(marks) } else { disk.pending = marks }
      left += disk.pending?.byteCount ?? 0
    }
    return left
  }

  private func store(_ marks: MarkedBlocks, of disk: DiskPass) throws(StrobeError) {
    let chunks = marks.chunks(disk.geometry)
    settings.progress.expectMore(disk.capture.byteCount(of: chunks))
    try disk.run(candidates: chunks, settings)
    // What was copied before is stored now; a newer copy may follow.
    disk.scratch?.whole.remove(chunks)
  }

  private func copy(_ marks: MarkedBlocks, of disk: DiskPass) throws(StrobeError) {
    let scratch = try scratch(of: disk)
    let pieces = scratch.missing(marks, limit: RangeReader.largestRange)
    let reader = try RangeReader(disk.plan.source, stop: settings.stop)
    try unsafe reader.read(pieces) { (bytes, offset) throws(StrobeError) in
      try unsafe scratch.write(bytes, at: offset)
      disk.capture.count(read: bytes.count)
    }
    scratch.insert(pieces)
  }

  /// The disk's scratch file, made when it is needed first.
  func scratch(of disk: DiskPass) throws(StrobeError) -> LiveScratch {
    if let scratch = disk.scratch { return scratch }
    let made = try LiveScratch(disk.geometry, in: settings.scratchFolder)
    disk.scratch = made
    return made
  }
}
