import CLinux
import Glibc
import Platform

/// A disk in the XML of a running domain. Source: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
package struct LibvirtDisk: Sendable, Equatable {
  /// `vda`.
  package let target: String
  /// `qcow2`, `raw`, …
  package let format: String
  /// What it is stored in: a path, or protocol and name.
  package let storage: String
  /// What `--disk` would read it by while the domain is off; nil when it isn't of this machine.
  package let path: String?
  /// Whether QEMU serves it on a thread of its own.
  package let hasThread: Bool
  /// Why it can't be taken whatever the version, or nil.
  package let obstacle: String?

  /// All disks that could be taken: no CD-ROMs, no empty drives, nothing read-only.
  package static func all(in domain: XMLElement) -> [LibvirtDisk] {
    guard let devices = domain.child("devices") else { return [] }
    let threaded = Set(
      devices.all("controller").filter { $0["type"] == "scsi" && hasThread($0) }
        .map { $0["index"] ?? "" })
    return devices.all("disk").compactMap { LibvirtDisk($0, threadedControllers: threaded) }
  }

  private init?(_ disk: XMLElement, threadedControllers: Set<String>) {
    guard let target = disk.child("target"), let name = target["dev"], !name.isEmpty,
      ["disk", "lun"].contains(disk["device"] ?? "disk"), disk.child("readonly") == nil,
      let source = disk.child("source"), let storage = Self.storage(source)
    else { return nil }
    self.target = name
    format = disk.child("driver")?["type"] ?? "raw"
    self.storage = storage
    path = source["file"] ?? source["dev"]
    let address = disk.child("address")
    let controller = address?["type"] == "drive" ? address?["controller"] : nil
    hasThread =
      Self.hasThread(disk)
      || target["bus"] == "scsi" && controller.map(threadedControllers.contains) == true
    obstacle = Self.obstacle(disk)
  }

  /// See https://libvirt.org/formatdomain.html#iothreads-allocation.
  private static func hasThread(_ device: XMLElement) -> Bool {
    guard let driver = device.child("driver") else { return false }
    return driver["iothread"] != nil || driver.child("iothreads") != nil
  }

  private static func storage(_ source: XMLElement) -> String? {
    if let path = source["file"] ?? source["dev"] ?? source["dir"] { return path }
    if let pool = source["pool"], let volume = source["volume"] { return "\(pool)/\(volume)" }
    if let kind = source["protocol"] {
      let hosts = source.all("host").map { $0["name"] ?? $0["socket"] ?? "" }
      return "\(kind)://\(hosts.joined(separator: ","))/\(source["name"] ?? "")"
    }
    return source["path"] ?? source["type"]
  }

  private static func obstacle(_ disk: XMLElement) -> String? {
    if disk.child("transient") != nil {
      return "it is transient: what the guest writes to it is dropped when it ends"
    }
    if disk["device"] == "lun" {
      return "it is passed through to the guest (device='lun'), past QEMU's record of writes"
    }
    switch disk["type"] {
    case "file", "block", "network", "volume", "nvme": return nil
    case let type: return "its storage (type='\(type ?? "")') isn't read and written by QEMU"
    }
  }
}

extension LibvirtDisk {
  /// Whether QEMU can keep a record of changes in the image, or why not.
  package var recordObstacle: String? {
    guard format == "qcow2" else {
      return "libvirt keeps a record of changes in qcow2 images only, and this one is \(format)"
    }
    if version == 2 {
      return "its qcow2 image is of version 2, which holds no record of changes "
        + "(while the domain is off: qemu-img amend -o compat=v3 \(storage))"
    }
    // Bit 2 of the incompatible features.
    if let header, header[79] & 4 != 0 {
      return
        "its qcow2 image keeps its data in another file, which can be changed without the image"
    }
    return nil
  }

  /// Whether the image has a backing file, or may have one.
  package var liesOverAnother: Bool { header.map { $0[8..<16].contains { $0 != 0 } } ?? true }

  /// Of the qcow2 format; nil when it can't be read here.
  private var version: UInt8? { header?[7] }

  /// The first 104 bytes of a qcow2 image; nil when they can't be read here, or it is none. Source: QEMU's
  /// docs/interop/qcow2.txt, "Header".
  private var header: [UInt8]? {
    guard let path, let file = try? FileDescriptor(opening: path, O_RDONLY) else { return nil }
    var header = [UInt8](repeating: 0, count: 104)
    let count = unsafe header.withUnsafeMutableBytes { try? unsafe file.read(at: 0, into: $0) }
    guard let count, count >= 72,
      header.starts(with: Array("QFI\u{FB}".unicodeScalars.map { UInt8($0.value) }))
    else { return nil }
    // In version 2 it is shorter, and what follows is something else.
    if header[7] == 2 { header.replaceSubrange(72..., with: [UInt8](repeating: 0, count: 32)) }
    return header
  }

  /// Tells what it is stored in from what takes the same path later.
  var mark: String {
    guard let path, let facts = try? FileFacts(path: path) else { return "storage:\(storage)" }
    if !facts.isBlockDevice {
      return "inode:\(facts.inode):born:\(facts.birth_seconds).\(facts.birth_nanoseconds)"
    }
    let device = "/sys/dev/block/\(facts.specialDevice)"
    for (kind, file) in [("dm", "dm/uuid"), ("md", "md/uuid"), ("wwid", "wwid")] {
      if let mark = readText("\(device)/\(file)"), !mark.isEmpty { return "\(kind):\(mark)" }
    }
    return "device:\(path)"
  }
}
