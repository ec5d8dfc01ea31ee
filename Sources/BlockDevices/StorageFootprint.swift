import CLinux
package import Platform

/// Where the bytes of a device or file lie, to tell whether writing to one changes another.
package struct StorageFootprint: Sendable {
  private let itself: DeviceNumber?
  /// Itself and what it lies on: the disk of a partition, the devices below a holder or a loop device.
  private var devices: [DeviceNumber]
  /// Files below that hold all of it, and those that hold it as one partition among others.
  private var files: Set<String> = []
  private var sharedFiles: Set<String> = []

  package init(of facts: FileFacts) {
    guard facts.isBlockDevice else {
      itself = nil
      devices = []
      files = ["\(facts.device):\(facts.inode)"]
      return
    }
    itself = facts.specialDevice
    devices = [facts.specialDevice]
    descend()
  }

  private mutating func descend() {
    var index = 0
    var isPart = false
    while index < devices.count {
      let current = devices[index]
      if DeviceTree.partition(current) != nil { isPart = true }
      if let loop = LoopBacking(of: current), loop.device == nil {
        if isPart {
          sharedFiles.insert(loop.key)
        } else {
          files.insert(loop.key)
        }
      }
      for device in DeviceTree.devices(below: current) where !devices.contains(device) {
        devices.append(device)
      }
      index += 1
    }
  }

  /// Whether they are one, one lies on the other, or both lie on one file. Two partitions of a disk are
  /// two.
  package func overlaps(_ other: StorageFootprint) -> Bool {
    if let itself, other.devices.contains(itself) { return true }
    if let theirs = other.itself, devices.contains(theirs) { return true }
    return !files.isDisjoint(with: other.files.union(other.sharedFiles))
      || !sharedFiles.isDisjoint(with: other.files)
  }
}
