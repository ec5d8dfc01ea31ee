import Glibc
import Platform
import Quiescing
import Synchronization
import TestSupport
import Testing
import VirtualMachines

/// A guest's agent and monitor, and what is needed to hold them.
final class TestGuest: Sendable {
  let agent: FakeAgent
  let monitor: FakeMonitor

  init(_ systems: TestFileSystems) throws {
    let name = systems.folder.file(hexadecimal(randomBytes(4)))
    agent = try FakeAgent(name + "-agent")
    monitor = try FakeMonitor(name + "-monitor")
  }

  /// Calls `body` whenever the agent or the monitor gets a command, before it is carried out.
  func atCommand(_ wanted: String, _ body: @escaping @Sendable () -> Void) {
    monitor.state.withLock { $0.observer = { if $0 == wanted { body() } } }
    agent.state.withLock {
      $0.instead = { command, _ in
        if command == wanted { body() }
        return false
      }
    }
  }

  /// What a driver is told.
  var words: [String] { ["agent=" + agent.path, "monitor=" + monitor.path] }
  var agentHold: GuestHold { .agent(socketPath: agent.path, timeoutMilliseconds: 60_000) }
  /// For what is expected not to be answered.
  var hastyHold: GuestHold { .agent(socketPath: agent.path, timeoutMilliseconds: 3000) }
  var isLetGo: Bool { !agent.isFrozen && monitor.isRunning }

  /// The engine's connection to the monitor.
  func connection() throws -> LineSocket {
    let socket = try LineSocket(connecting: monitor.path, milliseconds: 60_000)
    _ = try socket.line(until: monotonicMilliseconds() + 60_000)
    try socket.send(Array("{\"execute\": \"qmp_capabilities\"}\n".utf8), milliseconds: 60_000)
    _ = try socket.line(until: monotonicMilliseconds() + 60_000)
    return socket
  }

  static func processors(_ connection: LineSocket) -> GuestHold {
    .processors(monitorDescriptor: connection.number, socketPath: connection.path)
  }
}

@Suite("A guest that is held")
struct GuestHoldTests {
  private let systems = TestFileSystems()
  private let guest: TestGuest

  init() throws { guest = try TestGuest(systems) }

  private func session(_ guests: [GuestHold], milliseconds: Int = 60_000) throws -> FreezeSession {
    var options = systems.options
    options.maxFreezeMilliseconds = milliseconds
    return try FreezeSession([], guests: guests, options)
  }

  @Test("Is frozen, then stopped; resumed, then thawed")
  func whole() throws {
    let connection = try guest.connection()
    let session = try session([TestGuest.processors(connection), guest.agentHold])
    let results = try session.freeze()
    #expect(results.map(\.target.name) == [guest.agent.path, guest.monitor.path])
    #expect(results.allSatisfy { $0.outcome.isFrozen && $0.fileSystem == nil })
    #expect(guest.agent.isFrozen && !guest.monitor.isRunning)
    #expect(systems.records.count == 2 && systems.records.allSatisfy { $0.hasPrefix("guest-") })
    usleep(50_000)
    let window = try session.thaw()
    #expect(window.isHeld && window.milliseconds >= 50)
    #expect(guest.isLetGo && systems.records.isEmpty)
    // What the guardian asked for is still there for the engine, who reads.
    var text = ""
    while !text.contains("RESUME"),
      let line = try connection.line(until: monotonicMilliseconds() + 60_000)
    {
      text += String(decoding: line, as: UTF8.self)
    }
    while let line = try connection.line(until: monotonicMilliseconds() + 100) {
      text += String(decoding: line, as: UTF8.self)
    }
    #expect(text.contains("STOP") && text.contains("RESUME") && !text.contains("JSON parse error"))
  }

  @Test("Is let go when the session is let go of")
  func abandoned() throws {
    let connection = try guest.connection()
    _ = try session([TestGuest.processors(connection), guest.agentHold]).freeze()
    #expect(guest.isLetGo && systems.records.isEmpty)
  }

  @Test("Is let go at the deadline while the engine sleeps")
  func deadline() throws {
    let connection = try guest.connection()
    let session = try session(
      [TestGuest.processors(connection), guest.agentHold], milliseconds: 2000)
    _ = try session.freeze()
    try waitUntil("let go") { guest.isLetGo }
    try waitUntil("lost") { session.isLost }
    let window = try session.thaw()
    #expect(!window.isHeld && window.brokenBy?.contains("2000 ms") == true)
    #expect(systems.records.isEmpty)
  }

  @Test("That stood still before is not resumed, by nobody", arguments: [true, false])
  func stoppedBefore(hasGuardian: Bool) throws {
    guest.monitor.state.withLock { $0.isRunning = false }
    let connection = try guest.connection()
    let session = try session([TestGuest.processors(connection)])
    #expect(try session.freeze().map(\.outcome) == [.alreadyFrozen])
    if !hasGuardian {
      kill(session.guardianProcess, SIGKILL)
      try waitUntil("lost") { session.isLost }
    }
    _ = try session.thaw()
    #expect(!guest.monitor.isRunning && !guest.monitor.commands.contains("cont"))
    #expect(systems.records.isEmpty)
  }

  @Test("That somebody else froze before is not thawed")
  func frozenBefore() throws {
    guest.agent.state.withLock { ($0.isFrozen, $0.frozen) = (true, 2) }
    let session = try session([guest.agentHold])
    #expect(try session.freeze().map(\.outcome) == [.alreadyFrozen])
    #expect(try session.thaw().isHeld)
    #expect(guest.agent.isFrozen && systems.records.isEmpty)
  }

  @Test("That somebody else lets go was not held")
  func foreignThaw() throws {
    let connection = try guest.connection()
    for isAgent in [true, false] {
      let session = try session([isAgent ? guest.agentHold : TestGuest.processors(connection)])
      _ = try session.freeze()
      guest.agent.state.withLock { ($0.isFrozen, $0.frozen) = (false, 0) }
      guest.monitor.state.withLock { $0.isRunning = true }
      let window = try session.thaw()
      let path = isAgent ? guest.agent.path : guest.monitor.path
      #expect(!window.isHeld && window.brokenBy?.contains(path) == true)
      #expect(systems.records.isEmpty)
    }
  }

  @Test("Tells why it can't be frozen")
  func outcomes() throws {
    guest.agent.state.withLock { $0.disabled = ["guest-fsfreeze-freeze"] }
    do {
      let result = try #require(try session([guest.agentHold]).freeze().first)
      #expect(result.outcome == .unsupported && result.explanation?.contains("disabled") == true)
    }
    guest.agent.state.withLock {
      $0.disabled = []
      $0.fileSystems = 0
    }
    #expect(try session([guest.agentHold]).freeze().map(\.outcome) == [.failed(errno: ENODATA)])
    guest.agent.state.withLock {
      $0.instead = { name, client in
        if name != "guest-fsfreeze-freeze" { return false }
        client.send(
          "{\"error\": {\"class\": \"GenericError\", \"desc\": \"the hook failed: 7\"}}\n")
        return true
      }
    }
    let result = try #require(try session([guest.agentHold]).freeze().first)
    #expect(result.outcome == .failed(errno: EIO))
    #expect(result.explanation?.contains("the hook failed: 7") == true)
    guest.agent.stop()
    #expect(try session([guest.agentHold]).freeze().map(\.outcome) == [.vanished])
    #expect(systems.records.isEmpty)
  }

  @Test("With an agent that hangs costs the agent's limit before anything is done")
  func hungBefore() throws {
    guest.agent.state.withLock { $0.isHung = true }
    let session = try session([guest.hastyHold])
    #expect(try session.freeze().map(\.outcome) == [.failed(errno: ETIMEDOUT)])
    #expect(try session.thaw().isHeld && systems.records.isEmpty)
    guest.agent.state.withLock { $0.isHung = false }
    usleep(50_000)
    #expect(!guest.agent.commands.contains("guest-fsfreeze-freeze"))
  }

  @Test("That freezes too late is thawed all the same")
  func lateFreeze() throws {
    guest.agent.state.withLock {
      $0.instead = { name, _ in
        if name == "guest-fsfreeze-freeze" { usleep(4_000_000) }
        return false
      }
    }
    let session = try session([guest.hastyHold])
    let result = try #require(try session.freeze().first)
    #expect(result.outcome == .failed(errno: ETIMEDOUT) && result.explanation != nil)
    _ = try session.thaw()
    #expect(!guest.agent.isFrozen && systems.records.isEmpty)
    #expect(guest.agent.commands.contains("guest-fsfreeze-freeze"))
  }

  @Test("That is still freezing at the deadline is thawed all the same")
  func freezingAtDeadline() throws {
    guest.agent.state.withLock {
      $0.instead = { name, _ in
        if name == "guest-fsfreeze-freeze" { usleep(4_000_000) }
        return false
      }
    }
    let session = try session([guest.agentHold], milliseconds: 2000)
    let error = try #require(throws: StrobeError.self) { try session.freeze() }
    #expect(error.message.contains("2000 ms"), "\(error)")
    #expect(try !session.thaw().isHeld)
    #expect(guest.agent.commands.contains("guest-fsfreeze-freeze"))
    #expect(!guest.agent.isFrozen && systems.records.isEmpty)
  }

  @Test("With an agent that doesn't thaw in time is thawed later by the guardian")
  func slowThaw() throws {
    do {
      let session = try session([guest.agentHold])
      _ = try session.freeze()
      guest.agent.state.withLock { $0.instead = { name, _ in name == "guest-fsfreeze-thaw" } }
      #expect(throws: StrobeError.self) { try session.thaw() }
      #expect(guest.agent.isFrozen && systems.records.count == 1)
      guest.agent.state.withLock { $0.instead = nil }
    }
    try waitUntil("thawed") { !guest.agent.isFrozen }
    try waitUntil("record gone") { systems.records.isEmpty }
  }

  @Test("With an agent that doesn't thaw: it is said, and the record stays until strobe thaw")
  func hungThaw() throws {
    let error: StrobeError
    do {
      let session = try session([guest.agentHold])
      _ = try session.freeze()
      guest.agent.state.withLock {
        $0.instead = { name, _ in name == "guest-fsfreeze-thaw" || name.contains("sync") }
      }
      error = try #require(throws: StrobeError.self) { try session.thaw() }
      // The guardian goes on for a minute; it is not waited for.
      kill(session.guardianProcess, SIGKILL)
      guest.agent.state.withLock { $0.isHung = true }
    }
    #expect(error.message.contains("the guest of \(guest.agent.path) may still be frozen"))
    #expect(error.advice?.contains("strobe thaw \(guest.agent.path)") == true)
    guest.agent.state.withLock {
      $0.isHung = false
      $0.instead = nil
    }
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    try waitUntil("free") {
      let results = try repair.thawAll().map { try $0.get() }
      return results.contains { $0.mountPoint == guest.agent.path } || systems.records.isEmpty
    }
    #expect(!guest.agent.isFrozen && systems.records.isEmpty)
  }

  @Test("Whose agent says a line without an end is thawed over a new connection")
  func endlessLine() throws {
    let session = try session([guest.agentHold])
    _ = try session.freeze()
    let isFirst = Atomic<Bool>(true)
    guest.agent.state.withLock {
      $0.instead = { command, client in
        guard command == "guest-fsfreeze-thaw",
          isFirst.exchange(false, ordering: .relaxed)
        else { return false }
        client.send([UInt8](repeating: UInt8(ascii: "x"), count: 4 << 20))
        return true
      }
    }
    #expect(try session.thaw().isHeld)
    #expect(guest.isLetGo && systems.records.isEmpty)
  }

  @Test("Whose agent is restarted meanwhile is thawed over a new connection")
  func restarted() throws {
    let session = try session([guest.agentHold])
    _ = try session.freeze()
    guest.agent.stop()
    let shared = guest
    let join = try #require(
      inBackground {
        usleep(300_000)
        try? shared.agent.listen()
      })
    let window = try session.thaw()
    join()
    #expect(window.isHeld && !guest.agent.isFrozen)
  }

  @Test("Whose hypervisor ended is not waited for")
  func ended() throws {
    let connection = try guest.connection()
    let session = try session([TestGuest.processors(connection)])
    _ = try session.freeze()
    guest.monitor.stop()
    let window = try session.thaw()
    #expect(!window.isHeld && systems.records.isEmpty)
  }

  @Test("Is held by one session at a time, and only once")
  func twice() throws {
    let first = try session([guest.agentHold])
    let error = try #require(throws: StrobeError.self) {
      try session([guest.agentHold], milliseconds: 50)
    }
    #expect(error.reason == .busy && error.message.contains(guest.agent.path))
    _ = try first.thaw()
    let usage = try #require(throws: StrobeError.self) {
      try session([guest.agentHold, guest.agentHold])
    }
    #expect(usage.reason == .usage)
  }

  @Test("Is not frozen together with file systems of this host")
  func mixed() throws {
    let system = FileSystemOnDisk(
      mountPoint: "/nowhere", fileSystem: "ext4", device: DeviceNumber(major: 240, minor: 9),
      members: [], depth: 0, sources: [0], isReachable: true)
    let error = try #require(throws: StrobeError.self) {
      try FreezeSession([system], guests: [guest.agentHold], systems.options)
    }
    #expect(error.reason == .usage && systems.records.isEmpty)
  }
}
