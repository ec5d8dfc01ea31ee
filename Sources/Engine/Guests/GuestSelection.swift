import Platform
import SnapshotRepository
import VirtualMachines

/// Whether a pass takes the disks of a guest through its hypervisor, and which guest's.
enum GuestSelection {
  /// What is remembered of the guest, changed by what the caller said.
  static func memory(_ known: GuestRecord?, _ options: SnapshotOptions) -> GuestRecord {
    var memory = known ?? GuestRecord()
    let guest = options.guest
    if let agent = guest.agent { memory.agent = place(agent) }
    if let monitor = guest.pauseMonitor { memory.pauseMonitor = place(monitor) }
    if let scratch = guest.scratch { memory.scratch = place(scratch) }
    if let mayPause = guest.mayPause { memory.neverPauses = mayPause ? nil : true }
    if guest.hooksBringRest { memory.hooksBringRest = true }
    if !guest.excludedDisks.isEmpty {
      memory.excludedDisks = guest.excludedDisks == [forgotten] ? nil : guest.excludedDisks
    }
    if case .libvirt = guest.hypervisor { memory.agent = nil }
    // A guest is either read through its hypervisor or stopped for its host's disks to be read.
    if guest.hypervisor != nil { memory.pauseMonitor = nil }
    return memory
  }

  /// What makes a collection forget what it was told before.
  private static let forgotten = "none"

  private static func place(_ path: String) -> String? {
    path == forgotten ? nil : absolutePath(path)
  }

  /// Whose the disks of a pass are.
  enum Found {
    case thisHosts
    case running(GuestSession)
    case atRest(GuestAtRest)
  }

  static func find(
    remembered: [CollectionRecord.Disk], _ memory: GuestRecord, _ options: SnapshotOptions,
    collection: String, stop: CancellationFlag
  ) throws(StrobeError) -> Found {
    let locator = try locator(remembered, options, collection)
    try checkFreezing(locator, memory, options)
    guard let locator else { return .thisHosts }
    if case .mountPoints = options.freezing {
      throw StrobeError(
        .usage, "file systems of this host are not frozen for a guest's disks",
        advice: "the guest's own are, with --guest-agent SOCKET")
    }
    let kept = remembered.map(\.name).filter { !(memory.excludedDisks ?? []).contains($0) }
    let excluded = memory.excludedDisks ?? []
    if case .libvirt(let uri, let name) = locator,
      let domain = try DomainAtRest(connecting: uri, domain: name)
    {
      return .atRest(try GuestAtRest(locator, domain, remembered: kept, excluded: excluded))
    }
    return .running(
      try GuestSession(locator, remembered: kept, excluded: excluded, stop: stop))
  }

  /// Whether there is somebody to freeze the guest, where that is insisted on.
  private static func checkFreezing(
    _ locator: GuestLocator?, _ memory: GuestRecord, _ options: SnapshotOptions
  ) throws(StrobeError) {
    if case .libvirt = locator {
      guard options.guest.agent == nil else {
        throw StrobeError(
          .usage, "libvirt speaks to the guest's agent itself", advice: "leave --guest-agent out")
      }
      return
    }
    guard options.freezing == .guest, memory.agent == nil else { return }
    throw StrobeError(
      .usage, "no guest agent is known that could freeze the guest",
      advice: "name its socket: --guest-agent SOCKET")
  }

  private static func locator(
    _ remembered: [CollectionRecord.Disk], _ options: SnapshotOptions, _ collection: String
  ) throws(StrobeError) -> GuestLocator? {
    switch options.guest.hypervisor {
    case .qemu(let monitor):
      try refuseNamedDisks(options)
      return .qemu(monitor: absolutePath(monitor))
    case .libvirt(let uri, let domain):
      try refuseNamedDisks(options)
      let (hash, at) = (UInt8(ascii: "#"), UInt8(ascii: "@"))
      guard !domain.isEmpty, !domain.utf8.contains(hash), !domain.utf8.contains(at),
        !uri.utf8.contains(hash)
      else {
        throw StrobeError(
          .usage, "domain \(Names.quoted(domain)) has no name that could be remembered")
      }
      return .libvirt(uri: uri, domain: domain)
    case nil: break
    }
    let named = options.disks.map(\.name) + options.forgottenDisks
    let guests = remembered.filter { !named.contains($0.name) }.compactMap { disk in
      if case .guest(let guest, _) = DiskLocator(disk.source) { guest } else { nil }
    }
    guard let guest = guests.first else { return nil }
    guard options.disks.isEmpty else {
      let left = remembered.map(\.name).filter { !named.contains($0) }.joined(separator: ", ")
      throw StrobeError(
        .usage,
        "collection \(collection) takes the disks of \(guest.description), \(left) among them",
        advice: "say where each of them is with --disk, or leave --disk out")
    }
    try refuseNamedDisks(options)
    return guest
  }

  private static func refuseNamedDisks(_ options: SnapshotOptions) throws(StrobeError) {
    guard options.disks.isEmpty && options.forgottenDisks.isEmpty && options.idleDisks.isEmpty
    else {
      throw StrobeError(
        .usage, "a running guest's disks are found, not named",
        advice: "leave one out with --exclude-disk NAME")
    }
  }
}
