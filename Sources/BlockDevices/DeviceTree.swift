import CLinux
import Glibc
package import Platform

/// What sysfs tells of block devices: which contain which.
package enum DeviceTree {
  /// The kernel's name of a device, such as `vda1`, or nil when there is no such device.
  package static func name(of device: DeviceNumber) -> String? {
    resolvedPath("/sys/dev/block/\(device)").map(lastComponent)
  }

  /// How a message names a device: `/dev/vda1`, or its number when it is gone.
  package static func label(_ device: DeviceNumber) -> String {
    name(of: device).map { "/dev/\($0)" } ?? "\(device)"
  }

  package static func number(ofName name: String) -> DeviceNumber? {
    guard let text = readText("/sys/class/block/\(name)/dev") else { return nil }
    let halves = text.split(separator: ":").compactMap { Int($0) }
    guard halves.count == 2 else { return nil }
    return DeviceNumber(major: halves[0], minor: halves[1])
  }

  /// The disk that a partition is part of and its number there, or nil for a whole disk.
  package static func partition(_ device: DeviceNumber) -> (disk: DeviceNumber, number: Int)? {
    guard let path = resolvedPath("/sys/dev/block/\(device)"),
      let number = readText(path + "/partition").flatMap({ Int($0) }),
      let disk = self.number(ofName: lastComponent(parentDirectory(path)))
    else { return nil }
    return (disk, number)
  }

  /// What it is made of: the disk of a partition, the devices below a holder; of a loop device only the
  /// device below, its file is told by ``LoopBacking``.
  package static func devices(below device: DeviceNumber) -> [DeviceNumber] {
    var below: [DeviceNumber] = []
    if let (disk, _) = partition(device) { below.append(disk) }
    let slaves = (try? namesInDirectory("/sys/dev/block/\(device)/slaves")) ?? []
    below += slaves.compactMap(number(ofName:))
    if let inner = LoopBacking(of: device)?.device { below.append(inner) }
    return below
  }

  /// The device itself and every device whose content lies in it: partitions, holders (device-mapper,
  /// md) and loop devices on any of them, recursively.
  package static func devices(in device: DeviceNumber) -> [DeviceNumber] {
    var found = [device]
    var index = 0
    while index < found.count {
      for inner in children(of: found[index]) where !found.contains(inner) { found.append(inner) }
      index += 1
    }
    return found
  }

  private static func children(of device: DeviceNumber) -> [DeviceNumber] {
    partitionsAndHolders(of: device) + loopDevices { $0.device == device }
  }

  /// Whether it has partitions or holders, which then are who may use it.
  package static func isDivided(_ device: DeviceNumber) -> Bool {
    !partitionsAndHolders(of: device).isEmpty
  }

  /// Its partitions, and the devices that are made of it (device-mapper, md).
  package static func partitionsAndHolders(of device: DeviceNumber) -> [DeviceNumber] {
    guard let path = resolvedPath("/sys/dev/block/\(device)") else { return [] }
    let names = (try? namesInDirectory(path)) ?? []
    var inner = names.filter { (try? FileFacts(path: "\(path)/\($0)/partition")) ?? nil != nil }
    inner += (try? namesInDirectory(path + "/holders")) ?? []
    return inner.compactMap(number(ofName:))
  }

  /// The loop devices whose backing file is `file`.
  package static func loopDevices(backedBy file: FileFacts) -> [DeviceNumber] {
    loopDevices { $0.isFile(file) }
  }

  private static func loopDevices(where matches: (LoopBacking) -> Bool) -> [DeviceNumber] {
    LoopBacking.attached().filter { matches($0.backing) }.map(\.device)
  }
}
