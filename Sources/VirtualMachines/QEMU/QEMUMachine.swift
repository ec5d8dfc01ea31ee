package import Platform

/// A guest of QEMU that runs, through its monitor. Exports of qemu-storage-daemon are taken for a guest, too.
package final class QEMUMachine: GuestMachine {
  package private(set) var monitor: QMPConnection
  package let description: MachineDescription
  let features: QEMUFeatures
  private(set) var found: [QEMUDisk]
  private let milliseconds: Int

  /// - Parameters:
  ///   - socket: of `-qmp`.
  ///   - milliseconds: limit for QEMU's greeting.
  ///   - trustsViews: for tests, which know what an old QEMU gets wrong (`FilterCut.swift`).
  ///   - stop: ends the wait for any answer but to what ends a pass.
  package init(
    socket: String, milliseconds: Int, trustsViews: Bool = false, stop: CancellationFlag? = nil
  ) throws(StrobeError) {
    self.milliseconds = milliseconds
    monitor = try QMPConnection(connecting: socket, milliseconds: milliseconds, stop: stop)
    features = try QEMUFeatures(reading: monitor, trustsViews: trustsViews)
    description = MachineDescription(
      hypervisor: "QEMU \(features.version)",
      name: try Self.fact("query-name", "name", monitor),
      uuid: try Self.fact("query-uuid", "UUID", monitor))
    found = try DiskDiscovery(
      monitor: monitor, features: features, graph: try BlockGraph(reading: monitor)
    ).disks()
  }

  package var disks: [GuestDisk] { found.map(\.disk) }

  /// `running`, `paused`, `io-error`, …; nil: it has no processors.
  package func status() throws(StrobeError) -> String? {
    guard features.hasProcessors else { return nil }
    return try monitor.execute("query-status")["status"]?.text
  }

  package func begin(_ request: GuestPassRequest) throws(StrobeError) -> any GuestPass {
    let names = PassNames(collection: request.collection)
    guard LivePasses.begin(names) else {
      throw StrobeError(.busy, "another pass of this process reads the guest at \(monitor.path)")
    }
    do throws(StrobeError) {
      let lock = try GuestLock(of: monitor, uuid: description.uuid)
      monitor.stop = request.stop
      try clearLeftovers(request)
      return try QEMUPass(self, request, names, lock)
    } catch {
      LivePasses.end(names)
      throw error
    }
  }

  /// What is in QEMU's block layer now, with the disks that it has now.
  func look() throws(StrobeError) -> BlockGraph {
    let graph = try BlockGraph(reading: monitor)
    found = try DiskDiscovery(monitor: monitor, features: features, graph: graph).disks()
    return graph
  }

  /// Connects again when the connection was lost.
  ///
  /// - Returns: false when nobody listens any more: QEMU has ended.
  func reconnect() throws(StrobeError) -> Bool {
    guard monitor.isBroken else { return true }
    // Also one that is broken on this side only: a line without an end, a command that was sent by halves.
    monitor.hangUp()
    do throws(StrobeError) {
      monitor = try QMPConnection(connecting: monitor.path, milliseconds: milliseconds)
      return true
    } catch {
      if error.reason == .notFound { return false }
      throw error
    }
  }

  private func clearLeftovers(_ request: GuestPassRequest) throws(StrobeError) {
    guard features.canExport else {
      throw StrobeError(
        .refused, "QEMU \(features.version) can't export disks of a guest that runs",
        advice: "QEMU 5.2 and newer can")
    }
    let own = PassNames(collection: request.collection)
    let graph = try BlockGraph(reading: monitor)
    let all = Array(graph.nodes.keys) + graph.jobs.map(\.id) + graph.exports.map(\.id)
    for name in all {
      guard let other = PassNames(reading: name), other != own, LivePasses.isRunning(other) else {
        continue
      }
      throw StrobeError(
        .busy, "process \(other.owner.process) reads the guest at \(monitor.path)",
        advice: "wait until it has ended")
    }
    // A pass that began since, in another container (GuestLock), is left alone.
    try TakeDown(monitor: monitor, features: features) {
      $0 == own || !LivePasses.isRunning($0)
    }.run()
    ScratchFolder.removeLeftovers(in: request.scratchFolder, for: own)
    try request.stop.check()
    let now = try look()
    try ledger(request).settle(
      found.filter { request.disks.contains($0.name) }, parent: request.parent, now)
  }

  func ledger(_ request: GuestPassRequest) -> BitmapLedger {
    BitmapLedger(monitor: monitor, prefix: request.prefix)
  }

  private static func fact(_ command: String, _ key: String, _ monitor: QMPConnection)
    throws(StrobeError) -> String?
  {
    guard case .success(let value) = try monitor.ask(command) else { return nil }
    // QEMU has this one when nobody gave it any.
    let text = value[key]?.text
    return text == "00000000-0000-0000-0000-000000000000" ? nil : text
  }
}
