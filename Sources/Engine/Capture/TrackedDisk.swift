import ChangeDetection
import ChangeTracking
import Platform
import SnapshotRepository

/// A disk whose writes are tracked while it is captured.
///
/// Invariants:
/// - What is taken from a tracker is kept until the point is committed; a pass that fails gives it back.
/// - From the first exchange to the commit a pinned tracker counts from no point, so that after a pass
///   that was killed the next one reads the whole disk.
final class TrackedDisk {
  let tracker: ChangeTracker
  private let base: TrackerBase?
  private var taken: MarkedBlocks?
  private var hasBegun = false
  /// Why an earlier tracker of the disk was replaced by this one.
  private let restartReason: String?

  init(_ tracker: ChangeTracker, restartReason: String? = nil) {
    self.tracker = tracker
    self.restartReason = restartReason
    base = tracker.isPinned ? tracker.base : nil
  }

  /// Why the marks can't name what changed since the parent, or nil when they can.
  func doubt(of plan: DiskPlan, parent: RestorePoint?, collection: CollectionRecord) -> String? {
    guard tracker.isPinned else { return "no tracker was running" }
    if let reason = restartReason ?? tracker.lossReason {
      return "its tracker lost writes: \(reason)"
    }
    guard let parent, plan.parent != nil else { return plan.newChainReason ?? "there is no parent" }
    guard let base else { return "the tracker counts from no restore point yet" }
    guard base == Self.base(parent.id, collection, disk: plan.name) else {
      return "the tracker counts from another restore point than the parent"
    }
    return nil
  }

  static func base(_ point: String, _ collection: CollectionRecord, disk: String) -> TrackerBase? {
    guard let pointID = bytes(hexadecimal: point), let id = bytes(hexadecimal: collection.id) else {
      return nil
    }
    return TrackerBase(collection: id, point: pointID, disk: disk)
  }

  /// What was marked since the last exchange; the marks are taken.
  func exchange() -> MarkedBlocks {
    if tracker.isPinned && !hasBegun { tracker.setBase(nil) }
    hasBegun = true
    let marks = tracker.exchange()
    if let taken { taken.formUnion(marks) } else { taken = tracker.isPinned ? marks.copy() : nil }
    return marks
  }

  /// Whether anything was written since the last exchange, as far as that can be known.
  var wasWritten: Bool { tracker.hasMarks || tracker.lossReason != nil }

  /// Whether a chunk was written since the last exchange.
  func wasWritten(_ position: Int, _ geometry: ChunkGeometry) -> Bool {
    let offset = geometry.offset(of: position)
    return tracker.isMarked(offset..<(offset + geometry.length(of: position)))
  }

  /// Stops a tracker that can't be relied on; it is not used any more.
  func drop() throws(StrobeError) {
    try tracker.stop()
    taken = nil
    hasBegun = false
  }

  /// The pass failed: the marks and what they count from are as before.
  func giveBack() {
    guard hasBegun else { return }
    if let taken { tracker.merge(taken) }
    taken = nil
    if tracker.isPinned, tracker.lossReason == nil { tracker.setBase(base) }
    hasBegun = false
  }

  /// The point is committed: the marks count from it.
  func count(from point: RestorePoint, _ collection: CollectionRecord, disk: String) {
    taken = nil
    hasBegun = false
    if tracker.isPinned, tracker.lossReason == nil {
      tracker.setBase(Self.base(point.id, collection, disk: disk))
    }
  }
}
