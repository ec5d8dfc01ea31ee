import BlockDevices
package import Platform

/// What can be told of a pinned tracker.
package struct TrackerStatus: Sendable {
  package let device: DeviceNumber
  /// The kernel's name of the device, such as `vda1`; nil when it is gone.
  package let name: String?
  /// 32 hexadecimal digits.
  package let tracker: String
  /// When it was started, in nanoseconds since 1970.
  package let startedAtNanoseconds: Int
  /// Bytes of the source, and of a block of it.
  package let size: Int
  package let blockSize: Int
  /// Bytes that are marked as written.
  package let markedBytes: Int
  /// The restore point that it counts from; nil: none.
  package let base: TrackerBase?
  /// Why it can't be believed, or nil.
  package let lossReason: String?

  /// The point's id as text.
  package var basePoint: String? { base.map { hexadecimal($0.point) } }

  init(_ tracker: ChangeTracker) {
    device = tracker.device
    name = DeviceTree.name(of: tracker.device)
    self.tracker = tracker.id
    startedAtNanoseconds = tracker.startedAtNanoseconds
    size = tracker.size
    blockSize = tracker.blockSize
    markedBytes = tracker.markedBytes
    base = tracker.base
    lossReason = tracker.lossReason
  }
}

extension ChangeTracker {
  /// Every pinned tracker, by device number; also those that a pass holds and those whose device is gone.
  package static func status(
    in place: TrackerPlace = .standard
  ) throws(StrobeError) -> [TrackerStatus] {
    var all: [TrackerStatus] = []
    for device in try place.devices() {
      // Looks without taking the lock: nothing is changed.
      if let tracker = try open(device, in: place, lock: nil) { all.append(TrackerStatus(tracker)) }
    }
    return all
  }
}
