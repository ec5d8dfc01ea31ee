import CLinux
import Glibc
package import Platform

/// Who else uses a disk: mounts, swap, other holders, and the writes that it took.
package struct DiskUse: Sendable {
  /// Mounts of the disk, its partitions and whatever lies on them.
  package let mounts: [Mount]
  /// Who may write to the disk although no mount of it says so.
  package struct Writer: Sendable, Equatable {
    package enum Kind: Sendable {
      case swap, fileSystemMember
      /// The kernel or a program holds a device exclusively.
      case holder
      /// A program has an image file open for writing: a guest that runs, most likely.
      case program
    }

    package let kind: Kind
    package let device: DeviceNumber
    /// A clause: `/dev/vdb2 is swap space`.
    package let text: String
  }

  package let otherWriters: [Writer]

  /// Why the disk may be written to although no mount says so, or nil.
  package var otherWriter: String? { otherWriters.first?.text }

  package var writableMount: Mount? { mounts.first { $0.isWritable } }

  /// Looks at a device or image file, given by what statx(2) says of it.
  package init(of facts: FileFacts, path: String) throws(StrobeError) {
    let devices =
      facts.isBlockDevice
      ? DeviceTree.devices(in: facts.specialDevice)
      : DeviceTree.loopDevices(backedBy: facts).flatMap(DeviceTree.devices(in:))
    let used = try MountTable.read().compactMap { mount in
      Self.device(of: mount).flatMap { devices.contains($0) ? (mount, $0) : nil }
    }
    mounts = used.map(\.0)
    let node = facts.isBlockDevice ? path : nil
    var writers = Self.writers(devices, node: node, mounted: used.map(\.1))
    // A loop device has it open, too; what it writes shows in the file's times.
    if facts.isRegularFile, !devices.contains(where: Self.isWritable), Self.isOpenForWriting(path) {
      writers.append(
        Writer(kind: .program, device: facts.device, text: "a program has it open for writing"))
    }
    otherWriters = writers
  }

  /// The device that was mounted. Btrfs shows an anonymous number: its source tells.
  private static func device(of mount: Mount) -> DeviceNumber? {
    guard mount.device.major == 0 else { return mount.device }
    // Not the sources of others: looking at a path below a network or FUSE file system may hang.
    guard mount.fileSystem == "btrfs", mount.source.hasPrefix("/dev/"),
      let facts = (try? FileFacts(path: mount.source)) ?? nil,
      facts.isBlockDevice
    else { return nil }
    return facts.specialDevice
  }

  /// A mount accounts for its own device only: a partition beside it may be somebody else's.
  ///
  /// - Parameter node: the path of the first device, where it was given by the user.
  private static func writers(
    _ devices: [DeviceNumber], node: String?, mounted: [DeviceNumber]
  ) -> [Writer] {
    var writers: [Writer] = []
    for (index, device) in devices.enumerated() {
      guard let name = DeviceTree.name(of: device) else { continue }
      func add(_ kind: Writer.Kind, _ text: String) {
        writers.append(Writer(kind: kind, device: device, text: text))
      }
      if isSwap(name) {
        add(.swap, "/dev/\(name) is swap space")
      } else if mounted.contains(device) {
        continue
      } else if let members = BtrfsDevices.members(beside: name) {
        if members.contains(where: mounted.contains) { continue }
        add(.fileSystemMember, "/dev/\(name) is part of a mounted Btrfs of several devices")
      } else if !DeviceTree.isDivided(device) {
        let given = index == 0 ? node : nil
        guard isHeld(given ?? "/dev/\(name)") else { continue }
        let what = given == nil ? "/dev/\(name)" : "it"
        add(.holder, "the kernel or a program holds \(what) exclusively")
      }
    }
    return writers
  }

  private static func isWritable(_ device: DeviceNumber) -> Bool {
    readText("/sys/dev/block/\(device)/ro") != "1"
  }

  /// Stores to a mapped page leave no trace in a file's times for long.
  private static func isOpenForWriting(_ path: String) -> Bool {
    guard let file = try? FileDescriptor(opening: path, O_RDONLY) else { return false }
    return clinux_is_open_for_writing(file.number) == 1
  }

  /// The kernel knows of every exclusive holder, also of those that sysfs doesn't show.
  private static func isHeld(_ path: String) -> Bool {
    let probe = unsafe open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
    guard probe >= 0 else { return errno == EBUSY }
    close(probe)
    return false
  }

  private static func isSwap(_ name: String) -> Bool {
    (readText("/proc/swaps") ?? "").split(separator: "\n").contains {
      $0.hasPrefix("/dev/\(name) ")
    }
  }
}

/// A mark of everything written to a disk so far: equal before and after a pass means that nothing
/// was written in between.
package struct WriteMark: Equatable, Sendable {
  /// Nil where writes are not counted.
  private let counters: [Int]?

  /// Two marks prove something only when both are known.
  package static func == (one: WriteMark, other: WriteMark) -> Bool {
    guard let counts = one.counters, let others = other.counters else { return false }
    return counts == others
  }

  /// The counters of a block device (Documentation/block/stat.rst) or the times of a file. A partition is
  /// known by its whole disk's: writes through that don't count for the partition.
  package init(of source: DiskSource) throws(StrobeError) {
    guard let facts = source.facts else {
      counters = nil
      return
    }
    guard source.kind == .blockDevice else {
      counters = Self.times(try FileDescriptor(opening: source.filePath, O_RDONLY).facts())
      return
    }
    let device = facts.specialDevice
    let disk = DeviceTree.partition(device)?.disk ?? device
    let text = readText("/sys/dev/block/\(disk)/stat") ?? ""
    let fields = text.split(separator: " ").compactMap { Int($0) }
    guard Self.isCounted(device), fields.count > 6 else {
      counters = nil
      return
    }
    // Sectors written and discarded. Not the counts of requests: the kernel raises those only after it
    // has woken up whoever waited for the request, so a write before the pass would look like one in it.
    let sectors = [fields[6], fields.count > 13 ? fields[13] : 0]
    // The file below may be written to beside the loop device: its times tell.
    let below = LoopBacking(of: disk)?.open()
    counters = sectors + ((try below?.facts()).map(Self.times) ?? [])
  }

  /// Whether the kernel counts a device's writes (Documentation/block/queue-sysfs.rst, iostats).
  package static func isCounted(_ device: DeviceNumber) -> Bool {
    let disk = DeviceTree.partition(device)?.disk ?? device
    return readText("/sys/dev/block/\(disk)/queue/iostats") != "0"
  }

  private static func times(_ facts: FileFacts) -> [Int] {
    [
      Int(truncatingIfNeeded: facts.inode), Int(truncatingIfNeeded: facts.size),
      Int(facts.modified_seconds), Int(facts.modified_nanoseconds), Int(facts.changed_seconds),
      Int(facts.changed_nanoseconds),
    ]
  }
}
