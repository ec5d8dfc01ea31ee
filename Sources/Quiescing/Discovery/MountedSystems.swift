import BlockDevices
import Glibc
import Platform

/// The mounted file systems, one entry for each superblock however often it is mounted.
struct MountedSystems {
  struct Entry {
    let device: DeviceNumber
    let mountPoint: String
    let fileSystem: String
    let isWritable: Bool
    let members: [DeviceNumber]
    let isReachable: Bool
  }

  let table: [Mount]
  let entries: [Entry]

  /// - Parameter isWanted: of which file systems; the others are not touched, for opening the mount
  ///   point of a network file system may hang.
  init(where isWanted: (Mount) -> Bool) throws(StrobeError) {
    let table = try MountTable.read()
    var mounts: [DeviceNumber: [Mount]] = [:]
    var order: [DeviceNumber] = []
    for mount in table where isWanted(mount) {
      if mounts[mount.device] == nil { order.append(mount.device) }
      mounts[mount.device, default: []].append(mount)
    }
    self.table = table
    entries = order.compactMap { mounts[$0].map { Self.entry(of: $0, in: table) } }
  }

  /// File systems on block devices: those with a device's number, and Btrfs.
  init() throws(StrobeError) {
    try self.init { $0.device.major != 0 || $0.fileSystem == "btrfs" }
  }

  /// Opens a file system by its number: where it was seen last, or through any other mount of it.
  ///
  /// - Returns: nil when it isn't mounted any more, or mounted over everywhere.
  static func handle(
    of device: DeviceNumber, preferring mountPoint: String
  ) throws(StrobeError) -> MountHandle? {
    let table = try MountTable.read()
    if let handle = MountHandle(mountPoint, device: device, in: table) { return handle }
    return open(table.filter { $0.device == device }, in: table)?.0
  }

  private static func entry(of mounts: [Mount], in table: [Mount]) -> Entry {
    let first = mounts[0]
    let opened = open(mounts, in: table)
    var members = first.device.major == 0 ? [] : [first.device]
    if first.fileSystem == "btrfs" { members = btrfsMembers(first, opened?.0) }
    return Entry(
      device: first.device, mountPoint: opened?.1 ?? first.mountPoint,
      fileSystem: first.fileSystem, isWritable: mounts.contains(where: \.isWritable),
      members: members, isReachable: opened != nil)
  }

  private static func btrfsMembers(_ mount: Mount, _ file: MountHandle?) -> [DeviceNumber] {
    if let file, let members = BtrfsDevices.members(of: file.descriptor) { return members }
    guard let facts = (try? FileFacts(path: mount.source)) ?? nil, facts.isBlockDevice else {
      return []
    }
    let name = DeviceTree.name(of: facts.specialDevice) ?? ""
    return BtrfsDevices.members(beside: name) ?? [facts.specialDevice]
  }

  /// The first mount point that can be opened and really leads to the file system.
  private static func open(_ mounts: [Mount], in table: [Mount]) -> (MountHandle, String)? {
    for mount in mounts {
      if let handle = MountHandle(mount.mountPoint, device: mount.device, in: table) {
        return (handle, mount.mountPoint)
      }
    }
    return nil
  }
}

/// An opened mount point: what a file system is frozen and thawed through.
final class MountHandle: Sendable {
  let descriptor: FileDescriptor

  /// - Returns: nil when it can't be opened, or leads to another file system: something is mounted over
  ///   it, or it is gone.
  init?(_ mountPoint: String, device: DeviceNumber, in table: [Mount]) {
    guard let file = try? FileDescriptor(opening: mountPoint, O_RDONLY | O_DIRECTORY),
      MountTable.mount(of: file, in: table)?.device == device
    else { return nil }
    descriptor = file
  }
}
