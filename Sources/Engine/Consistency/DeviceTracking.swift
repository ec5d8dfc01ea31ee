import BlockDevices
import ChangeTracking
public import Platform
public import SnapshotRepository

/// Starts, stops and shows the trackers of this machine. Needs root and no repository.
public enum DeviceTracking {
  /// A tracker that is pinned in the kernel.
  public struct Status: Sendable, Encodable {
    /// `/dev/vdb`; `253:16` when the device is gone.
    public let device: String
    /// 32 hexadecimal digits.
    public let id: String
    public let since: Timestamp
    /// Bytes that were marked since the point that it counts from.
    public let writtenBytes: Int
    /// The identity of that point, or nil when there is none yet.
    public let point: String?
    /// `tracking` or `lost`.
    public let state: String
    /// Why what it marked is not complete, or nil.
    public let lost: String?
  }

  /// Starts a tracker that lasts until ``stop(_:)`` or a restart of the machine.
  ///
  /// - Parameter path: a block device, a whole disk or a partition.
  /// - Returns: the device's name.
  /// - Throws: `exists` when one runs, `system` or `refused` where the kernel can't do it.
  @discardableResult
  public static func start(_ path: String) throws(StrobeError) -> String {
    try ChangeTracker.startPinned(device(path))
    return path
  }

  /// - Throws: `notFound` when there is none, `busy` while a snapshot uses it.
  @discardableResult
  public static func stop(_ path: String) throws(StrobeError) -> String {
    try ChangeTracker.stopPinned(device(path))
    return path
  }

  /// Stops every tracker, also those of devices that are gone.
  ///
  /// - Returns: the devices' names.
  public static func stopAll() throws(StrobeError) -> [String] {
    var stopped = try ChangeTracker.stopVanished()
    for tracker in try ChangeTracker.status() {
      try ChangeTracker.stopPinned(tracker.device)
      stopped.append(tracker.device)
    }
    return stopped.map(DeviceTree.label)
  }

  /// - Parameter paths: the devices to show; all trackers when there are none.
  public static func status(_ paths: [String] = []) throws(StrobeError) -> [Status] {
    var wanted: [DeviceNumber] = []
    for path in paths { wanted.append(try device(path)) }
    return try ChangeTracker.status().filter { wanted.isEmpty || wanted.contains($0.device) }.map {
      Status(
        device: DeviceTree.label($0.device), id: $0.tracker,
        since: Timestamp(nanoseconds: $0.startedAtNanoseconds), writtenBytes: $0.markedBytes,
        point: $0.basePoint, state: $0.lossReason == nil ? "tracking" : "lost", lost: $0.lossReason)
    }
  }

  private static func device(_ path: String) throws(StrobeError) -> DeviceNumber {
    guard let facts = try FileFacts(path: path) else {
      throw StrobeError(.notFound, "\(path) does not exist", advice: "lsblk lists the disks")
    }
    guard facts.isBlockDevice else {
      throw StrobeError(
        .usage, "\(path) is not a block device",
        advice: "an image file needs no tracker on XFS and Btrfs")
    }
    return facts.specialDevice
  }
}

extension SnapshotEngine {
  /// The block devices among the disks that a collection remembers.
  public func blockDevices(of collection: String) throws(StrobeError) -> [String] {
    _ = try loadIndex(collection)
    return try CollectionRecord.read(repository.store, collection).disks.map(\.source).filter {
      ((try? FileFacts(path: $0)) ?? nil)?.isBlockDevice == true
    }
  }
}
