import Platform

// Which disks a guest has, and what they are called.

/// Finds the disks of a guest: writable, with a medium.
struct DiskDiscovery {
  let monitor: QMPConnection
  let features: QEMUFeatures
  let graph: BlockGraph

  func disks() throws(StrobeError) -> [QEMUDisk] {
    var found = features.hasProcessors ? try devices() : exports()
    // The name alone says which disk a restore point's was.
    found.sort { $0.name < $1.name }
    return found
  }

  private func devices() throws(StrobeError) -> [QEMUDisk] {
    var names = UniqueNames()
    var users: [String: Int] = [:]
    for device in graph.devices { users[device.node, default: 0] += 1 }
    var disks: [QEMUDisk] = []
    for device in graph.devices where !device.isReadOnly {
      guard let id = device.device, let node = graph.nodes[device.node] else { continue }
      let path = id.hasPrefix("/") ? id : "/machine/peripheral/" + id
      let kind = try property("type", of: Self.frontend(path)) ?? ""
      // The firmware's own memory is no disk.
      if kind.hasSuffix("-cd") || kind == "floppy" || kind.hasPrefix("cfi.pflash") { continue }
      let name = names.unique(Self.name(device, id))
      disks.append(
        QEMUDisk(
          named: name, device: path, attached: node, in: graph,
          obstacle: users[device.node, default: 1] > 1
            ? "several devices of the guest share it (share-rw)" : try obstacle(path, kind)))
    }
    return disks
  }

  /// qemu-storage-daemon's guests: whoever it exports a writable node to.
  private func exports() -> [QEMUDisk] {
    var names = UniqueNames()
    var seen: Set<String> = []
    var disks: [QEMUDisk] = []
    for export in graph.exports where PassNames(reading: export.id) == nil {
      guard let top = graph.nodes[export.node], !top.isReadOnly else { continue }
      let node = QEMUDisk.withoutFilters(top, graph)
      guard PassNames(reading: node.name) == nil, seen.insert(node.name).inserted else { continue }
      let name = names.unique(node.name)
      disks.append(
        QEMUDisk(named: name, device: nil, attached: node, in: graph, obstacle: nil))
    }
    return disks
  }

  /// The device's id; of one without, its drive's, or else its node's.
  private static func name(_ device: AttachedDevice, _ id: String) -> String {
    let path = frontend(id)
    if !path.hasPrefix("/") { return path }
    let peripherals = "/machine/peripheral/"
    if path.hasPrefix(peripherals) {
      return String(path.dropFirst(peripherals.count).prefix { $0 != "/" })
    }
    return device.drive.isEmpty ? device.node : device.drive
  }

  /// A virtio device is a bus with the device proper below it.
  private static func frontend(_ path: String) -> String {
    let backend = "/virtio-backend"
    return path.hasSuffix(backend) ? String(path.dropLast(backend.count)) : path
  }

  /// Why nothing can take a snapshot of the disk.
  private func obstacle(_ path: String, _ kind: String) throws(StrobeError) -> String? {
    let other =
      "take the host device or image itself with --disk and --guest-pause SOCKET "
      + "or --guest-agent SOCKET"
    if kind == "scsi-block" || kind == "scsi-generic" {
      return "QEMU doesn't see what the guest writes to a device of kind \(kind); \(other)"
    }
    guard features.abortsOnIOThreads, try hasIOThread(path) else { return nil }
    return
      "it has an iothread, and QEMU \(features.version) would abort when it exports it; \(other)"
  }

  private func hasIOThread(_ path: String) throws(StrobeError) -> Bool {
    if let thread = try property("iothread", of: path), !thread.isEmpty { return true }
    // A SCSI disk is served by its controller's.
    guard let bus = try property("parent_bus", of: path) else { return false }
    let controller = Self.frontend(parentDirectory(bus))
    let thread = try property("iothread", of: controller) ?? ""
    return !thread.isEmpty
  }

  private func property(_ name: String, of path: String) throws(StrobeError) -> String? {
    let answer = try monitor.ask(
      "qom-get", ["path": .string(path), "property": .string(name)])
    guard case .success(let value) = answer else { return nil }
    return value.text
  }
}

/// Gives names that a repository takes, each only once.
struct UniqueNames {
  private var given: Set<String> = []

  /// `name` in letters, digits, `-`, `_` and `.`, with a number behind it when it was given before.
  mutating func unique(_ name: String) -> String {
    var plain = String(
      name.prefix(100).map { character in
        character.isASCII
          && (character.isLetter || character.isNumber || "-_.".contains(character))
          ? character : "_"
      })
    if plain.isEmpty || plain.hasPrefix(".") || plain.hasPrefix("-") { plain = "_" + plain }
    var candidate = plain
    var number = 2
    while !given.insert(candidate).inserted {
      candidate = "\(plain)-\(number)"
      number += 1
    }
    return candidate
  }
}
