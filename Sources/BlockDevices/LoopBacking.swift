import CLinux
import Glibc
package import Platform

/// What a loop device really lies on, as the kernel says: its path in sysfs may lead to another file by
/// now, over-mounted, renamed, or seen from another mount namespace.
///
/// Source: loop(4), LOOP_GET_STATUS64.
package struct LoopBacking: Sendable {
  let facts: clinux_loop_facts
  /// The path that the kernel remembers; where it leads must be compared.
  private let path: String?

  /// - Returns: nil when `device` is no attached loop device, or only a partition of one.
  package init?(of device: DeviceNumber) {
    guard let name = DeviceTree.name(of: device), name.hasPrefix("loop"),
      DeviceTree.partition(device) == nil,
      let file = try? FileDescriptor(opening: "/dev/\(name)", O_RDONLY)
    else { return nil }
    self.init(file, device)
  }

  init?(_ file: borrowing FileDescriptor, _ device: DeviceNumber) {
    var facts = clinux_loop_facts()
    guard unsafe clinux_loop_facts(file.number, &facts) == 0 else { return nil }
    self.facts = facts
    let place = DeviceTree.name(of: device).map { "/sys/class/block/\($0)/loop/backing_file" }
    // One line break ends it; blanks before that are part of the name.
    path = place.flatMap { try? readFile($0, limit: 1 << 16) }.map {
      String(decoding: $0.last == UInt8(ascii: "\n") ? $0.dropLast() : $0[...], as: UTF8.self)
    }
  }

  /// All loop devices that are attached now.
  package static func attached() -> [(device: DeviceNumber, backing: LoopBacking)] {
    let names = (try? namesInDirectory("/sys/class/block")) ?? []
    return names.compactMap { name in
      // Only an attached one has the folder.
      guard name.hasPrefix("loop"),
        (try? FileFacts(path: "/sys/class/block/\(name)/loop")) ?? nil != nil,
        let device = DeviceTree.number(ofName: name), let backing = LoopBacking(of: device)
      else { return nil }
      return (device, backing)
    }
  }

  /// The device number that statx(2) shows of the file below; of a Btrfs that is a subvolume's.
  package var fileDevice: DeviceNumber {
    DeviceNumber(major: Int(facts.backing_major), minor: Int(facts.backing_minor))
  }

  package func isFile(_ file: FileFacts) -> Bool {
    file.inode == facts.backing_inode && file.device_major == facts.backing_major
      && file.device_minor == facts.backing_minor
  }

  /// The block device below, when there is no file.
  package var device: DeviceNumber? {
    guard facts.special_major != 0 else { return nil }
    return DeviceNumber(major: Int(facts.special_major), minor: Int(facts.special_minor))
  }

  /// The file below, opened, when its path still leads to it.
  package func open() -> FileDescriptor? {
    guard let path, let file = try? FileDescriptor(opening: path, O_RDONLY),
      let found = try? file.facts(), isFile(found)
    else { return nil }
    return file
  }

  /// What tells the file from others, until a restart numbers file systems anew.
  package var key: String {
    "\(facts.backing_major):\(facts.backing_minor):\(facts.backing_inode)"
  }
}
