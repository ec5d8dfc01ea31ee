import Glibc
import Platform
import VirtualMachines

// What is known of each way to hold a guest still is in this file, and what it does in one of its own (a ``Hold``).
// Another way is a case here, with what the compiler then asks for, and another such file.

/// A way to hold a guest still.
package enum GuestHold: Sendable, Equatable {
  /// The guest's file systems, by its guest agent.
  ///
  /// - socketPath: of the agent.
  /// - timeoutMilliseconds: how long the agent may take to answer, and to freeze.
  case agent(socketPath: String, timeoutMilliseconds: Int)
  /// The guest's processors, by its QMP monitor. The guest has to be running: one that isn't is left alone.
  ///
  /// - monitorDescriptor: the engine's connection, capabilities negotiated. Nobody reads from it during
  ///   ``FreezeSession/freeze()`` and ``FreezeSession/thaw()``; replies with the id `strobe-guardian`, and
  ///   errors without one, are to be skipped.
  /// - socketPath: of the monitor, to connect anew.
  case processors(monitorDescriptor: Int32, socketPath: String)

  /// The guest's file systems, through libvirt and its agent.
  case domain(uri: String, domain: String, timeoutMilliseconds: Int)

  /// What names it: the path of its socket, or `domain@URI`.
  package var socketPath: String {
    switch self {
    case .agent(let path, _), .processors(_, let path): path
    case .domain(let uri, let domain, _): "\(domain)@\(uri)"
    }
  }

  var kind: HoldKind {
    switch self {
    case .agent(let path, let milliseconds):
      .agent(socketPath: path, timeoutMilliseconds: milliseconds)
    case .processors(_, let path): .processors(socketPath: path)
    case .domain(let uri, let domain, let milliseconds):
      .domain(place: "\(domain)@\(uri)", timeoutMilliseconds: milliseconds)
    }
  }

  /// Whether it freezes the guest's file systems.
  package var isAgent: Bool {
    switch self {
    case .agent, .domain: true
    case .processors: false
    }
  }

  /// In the engine, before there is a guardian: connects, and finds out whether it can be held.
  ///
  /// - Throws: why it can't be; `cancelled`.
  func connect(stop: CancellationFlag) throws(StrobeError) -> (hold: any Hold, descriptor: Int32) {
    switch self {
    case .agent(let path, let milliseconds):
      let agent = try GuestAgent(connecting: path, milliseconds: milliseconds)
      try agent.synchronize(milliseconds: milliseconds, stop: stop)
      guard try !agent.isFrozen(milliseconds: milliseconds) else {
        throw StrobeError(
          .system(errno: EBUSY, call: "guest-fsfreeze-status", object: path),
          "the guest of \(path) is frozen already", advice: nil)
      }
      return (AgentHold(agent, milliseconds: milliseconds), agent.number)
    case .processors(let descriptor, let path):
      // The engine's own may be closed before the last thaw.
      let copy = try systemCall("fcntl", path) { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }
      return (ProcessorHold(inheriting: copy, path: path), copy)
    case .domain(let uri, let domain, let milliseconds):
      let hold = DomainHold(uri: uri, domain: domain, milliseconds: milliseconds)
      try hold.check()
      return (hold, hold.descriptor)
    }
  }
}

/// What a place is, as it stands in its record and in the guardian's orders.
enum HoldKind: Sendable, Equatable {
  case mount
  case agent(socketPath: String, timeoutMilliseconds: Int)
  case processors(socketPath: String)
  /// - place: `domain@URI`.
  case domain(place: String, timeoutMilliseconds: Int)

  /// In which order guests are frozen; thawed in the opposite one, for an agent whose processors stand still
  /// can't thaw.
  var step: Int {
    switch self {
    case .mount, .agent, .domain: 0
    case .processors: 1
    }
  }

  // MARK: records

  /// What the line of a record that names it begins with.
  var word: String {
    switch self {
    case .mount: "mount"
    case .agent: "agent"
    case .processors: "processors"
    case .domain: "domain"
    }
  }

  /// How long `strobe thaw` waits for a guest.
  private static let repairMilliseconds = 15_000

  init?(word: Substring, place: String) {
    switch word {
    case "mount": self = .mount
    case "agent":
      self = .agent(socketPath: place, timeoutMilliseconds: Self.repairMilliseconds)
    case "processors": self = .processors(socketPath: place)
    case "domain":
      self = .domain(place: place, timeoutMilliseconds: Self.repairMilliseconds)
    default: return nil
    }
  }

  // MARK: the guardian's orders

  static let fieldCount = 3

  var fields: [String] {
    switch self {
    case .mount: [word, "", "0"]
    case .agent(let path, let milliseconds): [word, path, "\(milliseconds)"]
    case .processors(let path): [word, path, "0"]
    case .domain(let place, let milliseconds): [word, place, "\(milliseconds)"]
    }
  }

  init?(fields: some Collection<String>) {
    let fields = Array(fields)
    guard fields.count == Self.fieldCount, let number = Int(fields[2]) else { return nil }
    switch fields[0] {
    case "mount": self = .mount
    case "agent": self = .agent(socketPath: fields[1], timeoutMilliseconds: number)
    case "processors": self = .processors(socketPath: fields[1])
    case "domain": self = .domain(place: fields[1], timeoutMilliseconds: number)
    default: return nil
    }
  }

  /// In the guardian.
  func hold(inheriting descriptor: Int32) -> any Hold {
    switch self {
    case .mount: MountHold(inheriting: descriptor)
    case .agent(let path, let milliseconds):
      AgentHold(GuestAgent(inheriting: descriptor, path: path), milliseconds: milliseconds)
    case .processors(let path): ProcessorHold(inheriting: descriptor, path: path)
    case .domain(let place, let milliseconds):
      DomainHold(place: place, milliseconds: milliseconds, inheriting: descriptor)
    }
  }

  // MARK: repair

  /// Ends what a session left of this guest, without any connection from before.
  ///
  /// - Returns: false when there was nothing to end; nil when the guest is gone.
  func endLeft() throws(StrobeError) -> Bool? {
    do throws(StrobeError) {
      switch self {
      case .mount: return nil
      case .agent(let path, let milliseconds):
        let agent = try GuestAgent(connecting: path, milliseconds: milliseconds)
        return try agent.thaw(milliseconds: milliseconds) > 0
      case .processors(let path):
        let limit = monotonicMilliseconds() + Self.repairMilliseconds
        return try GuestMonitor(connecting: path, until: limit).resume(until: limit)
      case .domain(let place, let milliseconds):
        return try DomainHold(place: place, milliseconds: milliseconds).thawLeft() > 0
      }
    } catch {
      // Nobody listens any more.
      if error.reason == .notFound { return nil }
      throw error
    }
  }
}
