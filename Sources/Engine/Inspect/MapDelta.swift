import ChangeDetection
import Platform
import SnapshotRepository

/// Walks over two states of one disk group by group, skipping the groups in which they can't differ.
///
/// States that share the older part of their chains differ only where a layer after it says something:
/// the walk costs what changed, not what the disk holds.
struct MapDelta {
  /// Nil stands for a disk of zeros.
  let old: Chain?
  let new: Chain

  /// Calls `body(group, old, new)` for every group in which the two may differ, in rising order. The
  /// maps are used again for the next group.
  func forEachGroup(
    stop: CancellationFlag,
    _ body: (_ group: Int, _ old: GroupMap, _ new: GroupMap) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    let oldMap = GroupMap()
    let newMap = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    let shared = sharedLayerCount
    for group in 0..<new.geometry.groupCount {
      try stop.check()
      guard mayDiffer(group, shared) else { continue }
      if let old, group < old.geometry.groupCount {
        try unsafe old.resolve(group: group, into: oldMap, scratch: scratch.bytes)
      } else {
        oldMap.reset()
      }
      try unsafe new.resolve(group: group, into: newMap, scratch: scratch.bytes)
      try body(group, oldMap, newMap)
    }
  }

  /// How many of the oldest layers are the same and show as much: a disk that shrank and grew in between
  /// hides the end of a layer that both have. 0 when the disk's size changed.
  private var sharedLayerCount: Int {
    guard let old, old.geometry == new.geometry else { return 0 }
    var count = 0
    while count < old.layers.count, count < new.layers.count,
      old.layers[count].header.id == new.layers[count].header.id,
      old.limits[count] == new.limits[count]
    { count += 1 }
    return count
  }

  private func mayDiffer(_ group: Int, _ shared: Int) -> Bool {
    if new.touches(group: group, firstLayer: shared) { return true }
    guard let old, group < old.geometry.groupCount else { return false }
    return old.touches(group: group, firstLayer: shared)
  }
}
