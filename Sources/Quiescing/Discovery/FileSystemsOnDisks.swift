import BlockDevices
package import Platform

/// Finds the mounted, writable file systems that lie on disks.
///
/// From each disk upwards: its partitions and holders, loop devices on any of them, the file systems on
/// all of these, loop devices whose *file* lies on one of those file systems, and so on.
///
/// Not found: what is mounted in other mount namespaces only; a file system whose journal alone lies on
/// the disk; a loop device whose file was deleted from a Btrfs, or lies on an overlay.
package struct FileSystemsOnDisks {
  private let systems: [MountedSystems.Entry]
  private let table: [Mount]
  private let loops: [(device: DeviceNumber, backing: LoopBacking)]
  /// The file system below each loop device, where the numbers don't tell: by index in `loops`.
  private let loopSystems: [DeviceNumber?]
  /// How deep each file system lies, and on which disks.
  private var depths: [DeviceNumber: Int] = [:]
  private var sources: [DeviceNumber: [Int]] = [:]

  /// More levels than anybody stacks; bounds the walk should the kernel show a loop.
  private static let maximumDepth = 64

  /// - Returns: innermost first, which is the order to freeze them in.
  package static func find(on disks: [DiskReference]) throws(StrobeError) -> [FileSystemOnDisk] {
    var search = try FileSystemsOnDisks()
    for (index, disk) in disks.enumerated() { search.walk(disk, index) }
    return search.result()
  }

  /// The file systems that are mounted at some places, in the order in which to freeze them.
  ///
  /// - Parameter disks: those that they are expected on; others are taken all the same.
  /// - Throws: `usage` when one is no mount point, can't be opened, or takes no writes.
  package static func find(
    at places: [String], on disks: [DiskReference]
  ) throws(StrobeError) -> [FileSystemOnDisk] {
    var search = try FileSystemsOnDisks()
    for (index, disk) in disks.enumerated() { search.walk(disk, index) }
    var all = search.result(includingOthers: true)
    var chosen: Set<DeviceNumber> = []
    for place in places {
      let path = resolvedPath(place) ?? place
      guard let mount = search.table.last(where: { $0.mountPoint == path }) else {
        throw StrobeError(
          .usage, "\(place) is not a mount point", advice: "findmnt lists the mount points")
      }
      guard all.contains(where: { $0.device == mount.device }) else {
        throw StrobeError(
          .usage,
          "\(place) (\(mount.fileSystem)) is read-only or lies on no block device: there is "
            + "nothing to freeze", advice: "leave it out")
      }
      chosen.insert(mount.device)
    }
    // Those that lie on none of the disks have their order among themselves, too.
    for system in all where chosen.contains(system.device) && system.sources.isEmpty {
      for member in system.members { search.walk(.device(member), Self.elsewhere) }
    }
    all = search.result()
    return all.filter { chosen.contains($0.device) }
  }

  /// The source of file systems that lie on none of the disks.
  private static let elsewhere = -1

  private init() throws(StrobeError) {
    let mounted = try MountedSystems()
    systems = mounted.entries
    table = mounted.table
    loops = LoopBacking.attached()
    let hasBtrfs = systems.contains { $0.fileSystem == "btrfs" }
    loopSystems = loops.map { [table] loop in
      LoopPlace.fileSystem(of: loop.backing, in: table, mayOpen: hasBtrfs)
    }
  }

  private mutating func walk(_ disk: DiskReference, _ source: Int) {
    var visited: [DeviceNumber: Int] = [:]
    switch disk {
    case .elsewhere: break
    case .device(let device): walk(device, 0, source, &visited)
    case .image(let file):
      for loop in loops where loop.backing.isFile(file) { walk(loop.device, 0, source, &visited) }
    }
  }

  /// Goes on from a device; again where a longer way leads to it, for the longest is its depth.
  private mutating func walk(
    _ device: DeviceNumber, _ depth: Int, _ source: Int, _ visited: inout [DeviceNumber: Int]
  ) {
    if depth > Self.maximumDepth || visited[device, default: -1] >= depth { return }
    visited[device] = depth
    for inner in DeviceTree.partitionsAndHolders(of: device) {
      walk(inner, depth + 1, source, &visited)
    }
    for loop in loops where loop.backing.device == device {
      walk(loop.device, depth + 1, source, &visited)
    }
    for system in systems where system.members.contains(device) {
      depths[system.device] = max(depths[system.device, default: 0], depth)
      if sources[system.device]?.last != source {
        sources[system.device, default: []].append(source)
      }
      for (index, loop) in loops.enumerated() where loopSystems[index] == system.device {
        walk(loop.device, depth + 1, source, &visited)
      }
    }
  }

  private func result(includingOthers: Bool = false) -> [FileSystemOnDisk] {
    let found = systems.filter {
      $0.isWritable && (includingOthers || depths[$0.device] != nil)
    }.map {
      FileSystemOnDisk(
        mountPoint: $0.mountPoint, fileSystem: $0.fileSystem, device: $0.device,
        members: $0.members, depth: depths[$0.device] ?? 0,
        sources: (sources[$0.device] ?? []).filter { $0 != Self.elsewhere },
        isReachable: $0.isReachable)
    }
    return found.sorted {
      ($0.depth, $0.device.major, $0.device.minor) > ($1.depth, $1.device.major, $1.device.minor)
    }
  }
}

/// On which file system the file of a loop device lies.
enum LoopPlace {
  /// - Parameter mayOpen: whether an anonymous number is worth opening the file.
  /// - Returns: the number of the superblock, or nil when there is no file or it can't be told.
  static func fileSystem(
    of loop: LoopBacking, in table: [Mount], mayOpen: Bool = true
  ) -> DeviceNumber? {
    if loop.device != nil { return nil }
    if loop.fileDevice.major != 0 { return loop.fileDevice }
    guard mayOpen, let file = loop.open() else { return nil }
    return MountTable.mount(of: file, in: table)?.device
  }
}
