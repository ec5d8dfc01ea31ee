import BlockDevices
import CLinux
import Glibc
import Platform

/// What sysfs tells of a device that is to be tracked.
struct TrackedDevice: Sendable {
  let device: DeviceNumber
  let disk: DeviceNumber
  /// Sectors of 512 bytes on the whole disk.
  let startSector: Int
  let sectorCount: Int
  /// The number that the kernel gives to every disk anew, and to a disk whose medium changed.
  let diskSequence: UInt64
  /// Whether it takes bios without making requests of them (dm, md, zram).
  let isBioBased: Bool

  /// - Returns: nil when there is no such device.
  init?(_ device: DeviceNumber) {
    let path = "/sys/dev/block/\(device)"
    let disk = DeviceTree.partition(device)?.disk ?? device
    guard let sectors = readText(path + "/size").flatMap({ Int($0) }),
      let name = DeviceTree.name(of: disk)
    else { return nil }
    self.device = device
    self.disk = disk
    sectorCount = sectors
    startSector = readText(path + "/start").flatMap { Int($0) } ?? 0
    diskSequence = readText("/sys/block/\(name)/diskseq").flatMap { UInt64($0) } ?? 0
    isBioBased = unsafe access("/sys/block/\(name)/mq", F_OK) != 0
  }

  var geometry: TrackerGeometry {
    TrackerGeometry(
      device: device, disk: disk, startSector: startSector, sectorCount: sectorCount)
  }

  /// Why writes to it could be missed, or nil.
  var obstacle: String? {
    let name = DeviceTree.name(of: disk) ?? "\(disk)"
    let queue = "/sys/block/\(name)/queue"
    if diskSequence == 0 { return "the kernel gives disks no sequence numbers (Linux 5.15 does)" }
    if sectorCount == 0 { return "\(name) has no size" }
    if readText(queue + "/dax") == "1" { return "\(name) can be written through memory (DAX)" }
    if let zones = readText(queue + "/zoned"), zones != "none" { return "\(name) has zones" }
    if isBioBased && name.hasPrefix("nvme") {
      return "\(name) has several paths, whose ends of writes can't be told apart"
    }
    if isBioBased && name.hasPrefix("zram") && Self.kernelVersion < (6, 3) {
      return "this kernel writes pages to \(name) past the block layer"
    }
    return nil
  }

  private static let kernelVersion: (Int, Int) = {
    let release = readText("/proc/sys/kernel/osrelease") ?? ""
    let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
    return numbers.count == 2 ? (numbers[0], numbers[1]) : (0, 0)
  }()

  /// Whether no write is in flight that began before now; true as well when the kernel doesn't say.
  var hasNoWritesInFlight: Bool {
    guard let name = DeviceTree.name(of: disk),
      let text = readText("/sys/block/\(name)/inflight")
    else { return true }
    return text.split(separator: " ").last.flatMap { Int($0) } ?? 0 == 0
  }
}
