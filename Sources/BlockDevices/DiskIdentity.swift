import CLinux
package import Platform

/// What tells one disk from another that took its place under the same name.
///
/// It survives a reboot and another device name; a disk without any such mark is known by its kernel
/// name alone.
package struct DiskIdentity: Equatable, Sendable {
  /// `wwid`, `serial`, `dm`, `md`, `loop`, `file`, `name`, each followed by what identifies it.
  package let text: String

  package init(text: String) { self.text = text }

  package init(of facts: FileFacts) {
    if !facts.isBlockDevice {
      text = "file:" + Self.mark(facts)
      return
    }
    let device = facts.specialDevice
    if let (disk, number) = DeviceTree.partition(device) {
      text = Self.ofDisk(disk) + ":partition:\(number)"
    } else {
      text = Self.ofDisk(device)
    }
  }

  /// An inode number is used again some day, its birth time is not.
  private static func mark(_ facts: FileFacts) -> String {
    "inode:\(facts.inode):born:\(facts.birth_seconds).\(facts.birth_nanoseconds)"
  }

  private static func ofLoop(_ device: DeviceNumber) -> String? {
    guard let loop = LoopBacking(of: device) else { return nil }
    guard let file = loop.open(), let facts = try? file.facts() else {
      return "loop:\(loop.key):at:\(loop.facts.offset)"
    }
    return "loop:\(mark(facts)):at:\(loop.facts.offset)"
  }

  private static func ofDisk(_ device: DeviceNumber) -> String {
    if let loop = ofLoop(device) { return loop }
    let path = "/sys/dev/block/\(device)"
    let marks = [
      ("dm", "dm/uuid"), ("md", "md/uuid"), ("wwid", "wwid"), ("wwid", "device/wwid"),
      ("serial", "serial"), ("serial", "device/serial"),
    ]
    for (kind, file) in marks {
      if let mark = readText("\(path)/\(file)"), !mark.isEmpty { return "\(kind):\(mark)" }
    }
    let name = DeviceTree.name(of: device) ?? "\(device)"
    return "name:\(name)"
  }
}
