import BlockDevices
import CLinux
import Glibc
package import Platform

/// Thaws what an outage of engine and guardian together left frozen: `strobe thaw`.
///
/// Every freeze of Strobe has a record with a lock (``FreezeRecord``). A record whose lock is free was left
/// behind. Thawing takes that lock first, so that no pass begins to freeze meanwhile. Whoever runs it
/// again finds nothing to do: that is no error.
package struct LeftFrozen {
  /// What was done about one file system or guest.
  package struct Repair: Sendable {
    package enum Outcome: Sendable, Equatable {
      case thawed
      /// It wasn't frozen: there was nothing to do.
      case notFrozen
      /// It isn't mounted any more, the guest ended, or the machine was restarted since: there is nothing to thaw.
      case gone
    }

    package enum Kind: String, Sendable {
      case fileSystem
      /// The file systems of a guest, by its agent.
      case agent
      /// The processors of a guest, by its monitor.
      case processors
    }

    package let kind: Kind
    /// The mount point, or the path of the guest's socket.
    package let mountPoint: String
    package let outcome: Outcome
  }

  let folder: String

  package init(recordFolder: String = FreezeRecord.defaultFolder) { folder = recordFolder }

  /// Thaws everything that was left behind.
  ///
  /// - Returns: what was done, or why not, for each record whose lock was free.
  /// - Throws: when the records can't be listed.
  package func thawAll() throws(StrobeError) -> [Result<Repair, StrobeError>] {
    let (devices, guests) = try recorded()
    // Processors first: an agent can't thaw without.
    let stopped = guests.filter(Self.isOfProcessors)
    return Self.atOnce(stopped) { (record) throws(StrobeError) in
      try Self.end(staleGuest: record)
    }.compactMap { $0 }
      + Self.atOnce(guests.filter { !stopped.contains($0) }) { (record) throws(StrobeError) in
        try Self.end(staleGuest: record)
      }.compactMap { $0 }
      + Self.atOnce(devices) { [self] (device) throws(StrobeError) in
        try thaw(stale: device)
      }.compactMap { $0 }
  }

  /// Thaws the file systems mounted at places, or the guests of sockets, those that an outage left frozen.
  ///
  /// - Parameter force: thaw them whoever froze them: another program, or a pass that still runs, which
  ///   then fails.
  /// - Returns: for each place what was done, or the error: `usage` when it is neither mount point nor socket, `busy`
  ///   when a pass holds it, `refused` when nothing was left there.
  package func thaw(_ places: [String], force: Bool) -> [Result<Repair, StrobeError>] {
    Self.atOnce(places) { [self] (place) throws(StrobeError) in
      try thaw(place, force: force)
    }.compactMap { $0 }
  }

  /// Does something with all elements at once: the thaw of a file system on a file of another frozen one
  /// waits for the thaw of that, and one whose device hangs keeps no other frozen.
  private static func atOnce<Element: Sendable>(
    _ elements: [Element],
    _ body: @escaping @Sendable (Element) throws(StrobeError) -> Repair?
  ) -> [Result<Repair, StrobeError>?] {
    let results = Monitor([Int: Result<Repair, StrobeError>?]())
    for (index, element) in elements.enumerated() {
      let run: @Sendable () -> Void = {
        var result: Result<Repair, StrobeError>?
        do throws(StrobeError) {
          result = try body(element).map { .success($0) }
        } catch {
          result = .failure(error)
        }
        results.update { $0[index] = .some(result) }
      }
      if !SmallThread.start(isDeep: true, run) { run() }
    }
    let all = results.wait { $0.count == elements.count ? $0 : nil } ?? [:]
    return elements.indices.map { all[$0] ?? nil }
  }

  private func thaw(_ path: String, force: Bool) throws(StrobeError) -> Repair {
    if let repair = try thawGuest(path, force: force) { return repair }
    let (device, handle) = try mounted(path)
    if force {
      let code = systemCallCode { clinux_thaw(handle.descriptor.number) }
      try check(code, path)
      _ = try? thaw(stale: device)
      return Repair(kind: .fileSystem, mountPoint: path, outcome: code == 0 ? .thawed : .notFrozen)
    }
    let record = FreezeRecord.path(of: device, in: folder)
    guard try FileFacts(path: record) != nil else {
      throw StrobeError(
        .refused, "\(path): no snapshot left it frozen",
        advice: "if it is frozen all the same, by another program, thaw it with --force")
    }
    if let repair = try thaw(stale: device) { return repair }
    throw StrobeError(
      .busy, "\(path): a snapshot that runs now holds it (\(FreezeRecord.holder(record)))",
      advice: "it thaws by itself, at its deadline at the latest; --force thaws it now, and the"
        + " snapshot fails")
  }

  private func mounted(_ path: String) throws(StrobeError) -> (DeviceNumber, MountHandle) {
    let place = resolvedPath(path) ?? absolutePath(path)
    let table = try MountTable.read()
    for mount in table.reversed() where mount.mountPoint == place {
      if let handle = MountHandle(place, device: mount.device, in: table) {
        return (mount.device, handle)
      }
    }
    throw StrobeError(
      .usage, "\(path) is not a mount point, nor the socket of a guest",
      advice: "findmnt lists the mount points")
  }

  private static func openIfThere(_ path: String) throws(StrobeError) -> FileDescriptor? {
    do throws(StrobeError) { return try FileDescriptor(opening: path, O_RDWR) } catch {
      if error.errno == ENOENT { return nil }
      throw error
    }
  }

  /// The records: file systems by their device, guests by the record's path.
  private func recorded() throws(StrobeError) -> (devices: [DeviceNumber], guests: [String]) {
    guard try FileFacts(path: folder) != nil else { return ([], []) }
    let names = try namesInDirectory(folder).sorted()
    let devices = names.compactMap { name in
      let halves = name.split(separator: "-").map { Int($0) }
      guard halves.count == 2, let major = halves[0], let minor = halves[1] else {
        return DeviceNumber?.none
      }
      return DeviceNumber(major: major, minor: minor)
    }
    let guests = names.filter { $0.hasPrefix(FreezeRecord.guestPrefix) }.map { "\(folder)/\($0)" }
    return (devices, guests)
  }

  /// Takes the lock of a record.
  ///
  /// - Returns: nil when there is no record, or a pass that runs holds it.
  static func locked(_ path: String) throws(StrobeError) -> FileDescriptor? {
    // Its holder may remove it just now: then nothing is left.
    guard try FileFacts(path: path) != nil, let file = try openIfThere(path),
      clinux_try_lock(file.number, 1) == 0, FreezeRecord.leads(path, to: file.number)
    else { return nil }
    return file
  }

  /// - Returns: nil when there is no record, or a pass that runs holds it.
  private func thaw(stale device: DeviceNumber) throws(StrobeError) -> Repair? {
    let path = FreezeRecord.path(of: device, in: folder)
    guard let file = try Self.locked(path) else { return nil }
    // Without a whole record nothing was frozen (R3).
    let content = FreezeRecordContent(reading: path)
    let mountPoint = content?.place ?? ""
    let handle =
      content?.isOfThisBoot == true
      ? try MountedSystems.handle(of: device, preferring: mountPoint) : nil
    guard let handle else {
      FreezeRecord.remove(path, lockedBy: file.number)
      return Repair(
        kind: .fileSystem, mountPoint: mountPoint.isEmpty ? "\(device)" : mountPoint,
        outcome: .gone)
    }
    let code = systemCallCode { clinux_thaw(handle.descriptor.number) }
    try check(code, mountPoint)
    FreezeRecord.remove(path, lockedBy: file.number)
    return Repair(
      kind: .fileSystem, mountPoint: mountPoint, outcome: code == 0 ? .thawed : .notFrozen)
  }

  private func check(_ code: Int32, _ mountPoint: String) throws(StrobeError) {
    if code == 0 || code == EINVAL { return }
    throw .system(code, call: "FITHAW", object: mountPoint)
  }
}
