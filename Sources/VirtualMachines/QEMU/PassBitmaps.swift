import Glibc
import Platform

// When the bitmaps of a pass start and stop.

extension QEMUPass {
  /// Whether this pass needs a new bitmap: for the next one, or to be able to give the parent's back.
  private var startsBitmaps: Bool { request.countsChanges || request.parent != nil }

  /// One transaction: the new bitmaps start, and what `others` says happens at the same instant.
  ///
  /// An image that can't keep a bitmap beyond QEMU's end has it in memory.
  func startBitmaps(with others: [JSONValue] = []) throws(StrobeError) {
    do throws(StrobeError) {
      try monitor.transaction(bitmapStarts(persistent: true) + others)
    } catch {
      guard startsBitmaps, disks.contains(where: \.keepsBitmaps), error.errno == EIO else {
        throw error
      }
      let persistent = error
      do throws(StrobeError) {
        try monitor.transaction(bitmapStarts(persistent: false) + others)
      } catch {
        throw persistent
      }
    }
  }

  private func bitmapStarts(persistent: Bool) -> [JSONValue] {
    guard startsBitmaps else { return [] }
    return disks.map {
      BitmapLedger.add(newBitmap(of: $0), to: $0.node, persistent: persistent && $0.keepsBitmaps)
    }
  }

  /// What stops the parent's bitmaps, of disks that have a sound one.
  var parentStops: [JSONValue] {
    disks.compactMap { disk in
      parentBitmap(of: disk).map { BitmapLedger.action("disable", disk.node, $0) }
    }
  }

  func stopParentBitmaps() throws(StrobeError) { try monitor.transaction(parentStops) }
}
