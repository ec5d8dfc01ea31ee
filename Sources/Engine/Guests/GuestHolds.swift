import Platform
import Quiescing
import SnapshotRepository
import VirtualMachines

/// How the guest of a pass is held still for the cut, if there is one.
struct GuestHolds {
  let holds: [GuestHold]
  let warnings: [String]
  /// The connection through which a guest with disks of this host is stopped.
  private let monitor: QMPConnection?

  /// Disks of this host: their guest is held still if it was named.
  init(_ context: PassContext) throws(StrobeError) {
    var holds = Self.agent(context)
    var warnings: [String] = []
    let path = context.collection.guest?.pauseMonitor
    monitor = try path.flatMap { (path) throws(StrobeError) in try Self.connect(path, &warnings) }
    if let monitor {
      holds.append(.processors(monitorDescriptor: monitor.number, socketPath: monitor.path))
    }
    self.holds = holds
    self.warnings = warnings
  }

  /// Disks of a guest.
  init(
    _ context: PassContext, _ guest: GuestSession, _ pass: any GuestPass
  ) throws(StrobeError) {
    var holds = Self.agent(context)
    if let domain = guest.machine as? LibvirtDomain, wantsFreeze(context) {
      // Without an agent there is nobody to ask: unless it was insisted on, that is no failure.
      guard domain.hasAgent || context.options.freezing == .guest else {
        self.holds = holds
        warnings = []
        monitor = nil
        return
      }
      holds.append(
        .domain(
          uri: domain.uri, domain: domain.name,
          timeoutMilliseconds: context.options.guest.agentMilliseconds))
    }
    if pass.needsPause, let machine = guest.machine as? QEMUMachine {
      holds.append(
        .processors(monitorDescriptor: machine.monitor.number, socketPath: machine.monitor.path))
    }
    self.holds = holds
    warnings = []
    monitor = nil
  }

  /// - Returns: nil when the guest is off: then it writes nothing, and whether anybody else does is looked at as ever.
  private static func connect(
    _ path: String, _ warnings: inout [String]
  ) throws(StrobeError) -> QMPConnection? {
    do throws(StrobeError) {
      return try QMPConnection(connecting: path, milliseconds: 10_000)
    } catch {
      guard error.reason == .notFound else { throw error }
      warnings.append("the guest is off, nothing was stopped: \(error.message)")
      return nil
    }
  }

  private static func agent(_ context: PassContext) -> [GuestHold] {
    guard let path = context.collection.guest?.agent, wantsFreeze(context) else { return [] }
    return [
      .agent(socketPath: path, timeoutMilliseconds: context.options.guest.agentMilliseconds)
    ]
  }

  /// Keeps the connection until then.
  func release() { withExtendedLifetime(monitor) {} }
}

private func wantsFreeze(_ context: PassContext) -> Bool {
  switch context.options.freezing {
  case .automatic, .guest: true
  case .none, .mountPoints: false
  }
}
