import BlockDevices
import ChangeTracking
import Platform
import Quiescing
import SnapshotRepository

/// Decides how each disk of a pass is brought to one instant.
struct CutPlanning {
  let disks: [DiskPass]
  let fileSystems: [FileSystemOnDisk]
  let options: SnapshotOptions
  /// Whether a guest that uses the disks is held still.
  let hasGuests: Bool
  private(set) var warnings: [String] = []

  init(
    _ disks: [DiskPass], frozen fileSystems: [FileSystemOnDisk], hasGuests: Bool,
    _ options: SnapshotOptions
  ) {
    self.hasGuests = hasGuests
    self.disks = disks
    self.fileSystems = fileSystems
    self.options = options
  }

  /// Whether there is a window in which something is held still.
  private var hasWindow: Bool {
    !fileSystems.isEmpty || options.hooks.areThere || hasGuests
  }

  mutating func choose() throws(StrobeError) {
    var untracked: [DiskPass] = []
    let frozen = try SelfDependence(fileSystems)
    for (index, disk) in disks.enumerated() {
      // A clone writes to the file system that holds the image: not while that is frozen.
      if frozen.collision(of: [disk.plan.source.filePath]) == nil,
        let clone = ImageClone(preparing: disk.plan.source)
      {
        disk.method = .clone(clone)
        continue
      }
      if try usePinned(disk) { continue }
      guard try isInUse(disk, index) else { continue }
      disk.method = hasWindow ? .underFreeze : .live
      if disk.plan.source.kind == .blockDevice { untracked.append(disk) }
    }
    guard options.tracking != .none, !untracked.isEmpty else { return }
    trackForThePass(untracked)
  }

  /// Whether somebody may write to the disk while it is read, or its file system will be frozen.
  private func isInUse(_ disk: DiskPass, _ index: Int) throws(StrobeError) -> Bool {
    if options.hooks.areThere || hasGuests
      || fileSystems.contains(where: { $0.sources.contains(index) })
    {
      return true
    }
    guard let facts = disk.plan.source.facts else { return false }
    let device = facts.specialDevice
    if disk.plan.source.kind == .blockDevice,
      DeviceTree.partition(device) != nil || !WriteMark.isCounted(device)
    {
      // Who writes to it through its whole disk, or uncounted, is seen by a tracker only.
      return true
    }
    let use = try DiskUse(of: facts, path: disk.plan.source.filePath)
    return use.writableMount != nil || use.otherWriter != nil
  }

  /// Takes the tracker that runs for a disk. One that lost writes is started anew: it counts from this
  /// point on.
  private mutating func usePinned(_ disk: DiskPass) throws(StrobeError) -> Bool {
    guard options.tracking != .none, let device = disk.plan.source.device else { return false }
    do throws(StrobeError) {
      guard let lossReason = try stateOfPinned(device) else { return false }
      if let lossReason {
        try ChangeTracker.startPinned(device)
        warnings.append(
          "disk \(disk.name): its tracker was started anew, because \(lossReason)")
      }
      guard let tracker = try ChangeTracker.openPinned(device) else { return false }
      disk.method = .preCopy(TrackedDisk(tracker, restartReason: lossReason))
      return true
    } catch {
      // A hint that can't be had costs time, not the point.
      disk.scanReason = "its tracker can't be used: \(error.message)"
      warnings.append("disk \(disk.name): its tracker can't be used: \(error.message)")
      return false
    }
  }

  /// - Returns: nil when there is no tracker, else why it is lost, or nil.
  private func stateOfPinned(_ device: DeviceNumber) throws(StrobeError) -> String?? {
    if let tracker = try ChangeTracker.openPinned(device) { return .some(tracker.lossReason) }
    guard options.tracking == .keep else { return nil }
    try ChangeTracker.startPinned(device)
    return .some(nil)
  }

  /// Disks in use without a tracker get one for the length of the pass, so that the window need not last
  /// as long as reading them.
  private mutating func trackForThePass(_ untracked: [DiskPass]) {
    do throws(StrobeError) {
      let trackers = try ChangeTracker.transient(
        on: untracked.compactMap(\.plan.source.device))
      for (disk, tracker) in zip(untracked, trackers) {
        disk.method = .preCopy(TrackedDisk(tracker))
      }
    } catch {
      for disk in untracked { disk.scanReason = disk.scanReason ?? error.message }
      warnings.append(
        "\(error.message); \(hasWindow ? "disks are read whole while they are frozen" : "disks are read whole")"
      )
    }
  }

  /// Refuses disks that would have to stay frozen for longer than allowed.
  func checkEstimate(stop: CancellationFlag) throws(StrobeError) {
    var seconds = 0.0
    var names: [String] = []
    for disk in disks {
      guard hasWindow, case .underFreeze = disk.method else { continue }
      seconds += try ReadEstimate.seconds(disk.plan.source, stop: stop)
      names.append(disk.name)
    }
    guard seconds * 1000 > Double(options.maxFreezeMilliseconds) else { return }
    throw StrobeError(
      .refused,
      "without a tracker, \(names.joined(separator: " and ")) would stay frozen for about "
        + "\(Int(seconds.rounded(.up))) s, longer than the \(options.maxFreezeMilliseconds) ms allowed",
      advice: "track the writes (strobe track start), allow more (--max-freeze), or don't freeze "
        + "(--freeze none)")
  }
}

extension DiskSource {
  /// The number of a block device, nil for everything else.
  var device: DeviceNumber? { kind == .blockDevice ? facts?.specialDevice : nil }
}
