import CLinux
import Glibc
package import Platform

/// Who else uses a disk: mounts, swap, other holders, and the writes that it took.
package struct DiskUse: Sendable {
  /// Mounts of the disk, its partitions and whatever lies on them.
  package let mounts: [Mount]
  /// Why the disk may be written to although no mount says so, or nil.
  package let otherWriter: String?

  package var writableMount: Mount? { mounts.first { $0.isWritable } }

  /// Looks at a device or image file, given by what statx(2) says of it.
  package init(of facts: FileFacts, path: String) throws(StrobeError) {
    let devices =
      facts.isBlockDevice
      ? DeviceTree.devices(in: facts.specialDevice)
      : DeviceTree.loopDevices(backedBy: facts).flatMap(DeviceTree.devices(in:))
    let names = devices.compactMap(DeviceTree.name(of:))
    let table = try MountTable.read()
    let mounts = table.filter { mount in
      devices.contains(mount.device) || Self.isMount(mount, ofOneOf: devices)
    }
    self.mounts = mounts
    otherWriter = Self.otherWriter(
      facts, path, names: names, isMounted: !mounts.isEmpty)
  }

  /// Btrfs shows an anonymous device number: its source tells.
  private static func isMount(_ mount: Mount, ofOneOf devices: [DeviceNumber]) -> Bool {
    guard mount.device.major == 0, mount.source.hasPrefix("/"),
      let facts = (try? FileFacts(path: mount.source)) ?? nil, facts.isBlockDevice
    else { return false }
    return devices.contains(facts.specialDevice)
  }

  private static func otherWriter(
    _ facts: FileFacts, _ path: String, names: [String], isMounted: Bool
  ) -> String? {
    if let name = names.first(where: isSwap) { return "/dev/\(name) is swap space" }
    if let name = names.first(where: isBtrfsMember), !isMounted {
      return "/dev/\(name) is part of a mounted Btrfs of several devices"
    }
    guard facts.isBlockDevice, !isMounted else { return nil }
    // The kernel knows of every exclusive holder, also of those that sysfs doesn't show.
    let probe = unsafe open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
    if probe >= 0 {
      close(probe)
      return nil
    }
    return errno == EBUSY ? "the kernel or a program holds it exclusively" : nil
  }

  private static func isSwap(_ name: String) -> Bool {
    (readText("/proc/swaps") ?? "").split(separator: "\n").contains { $0.hasPrefix("/dev/\(name) ") }
  }

  private static func isBtrfsMember(_ name: String) -> Bool {
    let systems = (try? namesInDirectory("/sys/fs/btrfs")) ?? []
    return systems.contains {
      ((try? FileFacts(path: "/sys/fs/btrfs/\($0)/devices/\(name)")) ?? nil) != nil
    }
  }
}

/// A mark of everything written to a disk so far: equal before and after a pass means that nothing
/// was written in between.
package struct WriteMark: Equatable, Sendable {
  private let counters: [Int]

  /// The counters of a block device (Documentation/block/stat.rst) or the times of a file.
  package init(of source: DiskSource) throws(StrobeError) {
    guard source.kind == .blockDevice else {
      let facts = try FileDescriptor(opening: source.path, O_RDONLY).facts()
      counters = [
        Int(facts.inode), Int(facts.size), Int(facts.modified_seconds),
        Int(facts.modified_nanoseconds), Int(facts.changed_seconds), Int(facts.changed_nanoseconds),
      ]
      return
    }
    let text = readText("/sys/dev/block/\(source.facts.specialDevice)/stat") ?? ""
    let fields = text.split(separator: " ").compactMap { Int($0) }
    // Sectors written and discarded. Not the counts of requests: the kernel raises those only after it
    // has woken up whoever waited for the request, so a write before the pass would look like one in it.
    counters = [6, 13].map { $0 < fields.count ? fields[$0] : 0 }
  }
}
