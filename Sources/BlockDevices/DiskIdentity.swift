import CLinux
import Platform

/// What tells one disk from another that took its place under the same name.
///
/// It survives a reboot and another device name; a disk without any such mark is known by its kernel
/// name alone.
package struct DiskIdentity: Equatable, Sendable {
  /// `wwid`, `serial`, `dm`, `md`, `loop`, `file`, `name`, each followed by what identifies it.
  package let text: String

  package init(text: String) { self.text = text }

  init(of file: borrowing FileDescriptor, _ facts: FileFacts) {
    if !facts.isBlockDevice {
      text = "file:" + Self.mark(facts)
      return
    }
    let device = facts.specialDevice
    if let (disk, number) = DeviceTree.partition(device) {
      text = Self.ofDisk(disk) + ":partition:\(number)"
    } else {
      text = Self.ofLoop(file) ?? Self.ofDisk(device)
    }
  }

  /// An inode number is used again some day, its birth time is not.
  private static func mark(_ facts: FileFacts) -> String {
    "inode:\(facts.inode):born:\(facts.birth_seconds).\(facts.birth_nanoseconds)"
  }

  private static func ofLoop(_ file: borrowing FileDescriptor) -> String? {
    var loop = clinux_loop_facts()
    guard unsafe clinux_loop_facts(file.number, &loop) == 0 else { return nil }
    guard
      let name = DeviceTree.name(
        of: (try? file.facts())?.specialDevice ?? .init(major: 0, minor: 0)),
      let backing = readText("/sys/class/block/\(name)/loop/backing_file"),
      let facts = (try? FileFacts(path: backing)) ?? nil, facts.inode == loop.backing_inode
    else { return "loop:inode:\(loop.backing_inode):at:\(loop.offset)" }
    return "loop:\(mark(facts)):at:\(loop.offset)"
  }

  private static func ofDisk(_ device: DeviceNumber) -> String {
    let path = "/sys/dev/block/\(device)"
    let marks = [
      ("dm", "dm/uuid"), ("md", "md/uuid"), ("wwid", "wwid"), ("wwid", "device/wwid"),
      ("serial", "serial"), ("serial", "device/serial"),
    ]
    for (kind, file) in marks {
      if let mark = readText("\(path)/\(file)"), !mark.isEmpty { return "\(kind):\(mark)" }
    }
    let name = DeviceTree.name(of: device) ?? "\(device)"
    if name.hasPrefix("loop"), let backing = readText("/sys/class/block/\(name)/loop/backing_file"),
      let facts = (try? FileFacts(path: backing)) ?? nil
    {
      return "loop:\(mark(facts)):at:\(readText("/sys/class/block/\(name)/loop/offset") ?? "0")"
    }
    return "name:\(name)"
  }
}
