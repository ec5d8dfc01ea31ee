import BlockDevices
import CLinux
import Glibc
package import Platform

/// Which of our own places would stop working when file systems are frozen.
///
/// Who writes to a frozen file system waits for the thaw. A repository there would stop the very pass that
/// is to end the freeze; so would one on a loop device whose file lies there.
package struct SelfDependence {
  package struct Collision: Sendable {
    package let path: String
    /// The file system that it depends on.
    package let mountPoint: String
  }

  private let table: [Mount]
  private let frozen: [DeviceNumber: String]
  private let systems: MountedSystems

  package init(_ fileSystems: [FileSystemOnDisk]) throws(StrobeError) {
    systems = try MountedSystems()
    table = systems.table
    frozen = Dictionary(
      fileSystems.map { ($0.device, $0.mountPoint) }, uniquingKeysWith: { first, _ in first })
  }

  /// The first of `paths` that lies on one of the file systems, directly or through loop devices and
  /// holders. A path that doesn't exist yet counts as its nearest directory that does.
  package func collision(of paths: [String]) -> Collision? {
    for path in paths {
      guard let place = fileSystem(of: path) else { continue }
      if let mountPoint = frozenSystem(below: place) {
        return Collision(path: path, mountPoint: mountPoint)
      }
    }
    return nil
  }

  private func fileSystem(of path: String, visited: Set<String> = []) -> DeviceNumber? {
    var place = absolutePath(path)
    while true {
      if let file = try? FileDescriptor(opening: place, clinux_O_PATH) {
        let mount = MountTable.mount(of: file, in: table)
        // An overlay's writes go to the file system below it.
        if let upper = mount?.upperDirectory, !visited.contains(upper) {
          return fileSystem(of: upper, visited: visited.union([upper]))
        }
        return mount?.device
      }
      if place == "/" { return nil }
      place = parentDirectory(place)
    }
  }

  private func frozenSystem(below start: DeviceNumber) -> String? {
    var pending = [start]
    var seen: Set<DeviceNumber> = []
    while let system = pending.popLast() {
      if let mountPoint = frozen[system] { return mountPoint }
      guard seen.insert(system).inserted else { continue }
      pending += fileSystems(directlyBelow: system)
    }
    return nil
  }

  /// The file systems that hold the files behind the loop devices that a file system lies on.
  private func fileSystems(directlyBelow system: DeviceNumber) -> [DeviceNumber] {
    var devices = systems.entries.first { $0.device == system }?.members ?? []
    var found: [DeviceNumber] = []
    var index = 0
    while index < devices.count {
      if let loop = LoopBacking(of: devices[index]),
        let below = LoopPlace.fileSystem(of: loop, in: table)
      {
        found.append(below)
      }
      for device in DeviceTree.devices(below: devices[index]) where !devices.contains(device) {
        devices.append(device)
      }
      index += 1
    }
    return found
  }
}
