import Glibc
import Platform
import Quiescing
import Synchronization
import TestSupport
import Testing
import VirtualMachines

@Suite("When engine or guardian of a guest die")
struct GuestOutageTests {
  private let systems = TestFileSystems()
  private let guest: TestGuest

  init() throws { guest = try TestGuest(systems) }

  /// Waits until no guardian holds a record any more; then nothing may be held.
  private func expectLetGo() throws {
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    try waitUntil("records gone") {
      // An engine that died before it had a guardian leaves records that say so.
      for result in try repair.thawAll() { #expect(try result.get().outcome != .thawed) }
      return systems.records.isEmpty
    }
    #expect(guest.isLetGo, "\(guest.agent.commands) \(guest.monitor.commands)")
  }

  @Test("An engine that is killed at any moment leaves nothing held")
  func engineKilled() throws {
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<Needs.rounds {
      let driver = try systems.driver(guest.words, way: "repeat")
      try waitUntil("ready") { driver.guardian != nil || driver.process.hasEnded }
      usleep(UInt32.random(in: 0..<60_000, using: &generator))
      try #require(!driver.process.hasEnded, "\(driver.text)")
      driver.process.signal(SIGKILL)
      driver.process.wait()
      try expectLetGo()
    }
    #expect(guest.monitor.commands.contains("stop"))
  }

  private static let steps = [
    "guest-sync-delimited", "guest-fsfreeze-status", "guest-fsfreeze-freeze", "stop", "cont",
    "guest-fsfreeze-thaw",
  ]

  @Test("An engine that is killed at a step leaves nothing held", arguments: steps)
  func engineKilledAt(step: String) throws {
    let driver = try systems.driver(guest.words, way: "repeat")
    let id = driver.process.id
    guest.atCommand(step) { kill(id, SIGKILL) }
    driver.process.wait()
    try expectLetGo()
    #expect((guest.agent.commands + guest.monitor.commands).contains(step))
  }

  @Test(
    "A guardian that is killed at a step is replaced by the engine", arguments: steps.dropFirst(2))
  func guardianKilledAt(step: String) throws {
    let connection = try guest.connection()
    let session = try FreezeSession(
      [], guests: [TestGuest.processors(connection), guest.agentHold], systems.options)
    let guardian = session.guardianProcess
    guest.atCommand(step) { kill(guardian, SIGKILL) }
    _ = try? session.freeze()
    #expect(try !session.thaw().isHeld && session.isLost)
    #expect(guest.isLetGo && systems.records.isEmpty)
  }

  @Test(
    "An engine that is killed while it holds, also in the middle of a command, is replaced at once",
    arguments: ["hold", "midline"])
  func engineKilledHolding(way: String) throws {
    let driver = try systems.driver(guest.words, milliseconds: 600_000, way: way)
    try waitUntil("frozen") { driver.isFrozen }
    #expect(guest.agent.isFrozen && !guest.monitor.isRunning)
    driver.process.signal(SIGKILL)
    try waitUntil("let go") { guest.isLetGo }
    try expectLetGo()
    let guardian = try #require(driver.guardian)
    try waitUntil("the guardian ends") { !isAlive(guardian) }
  }

  @Test(
    "An engine that is stopped, also in the middle of a command, is replaced at the deadline",
    arguments: ["hold", "midline"])
  func engineStopped(way: String) throws {
    let driver = try systems.driver(guest.words, milliseconds: 1000, way: way)
    try waitUntil("frozen") { driver.isFrozen }
    driver.process.signal(SIGSTOP)
    #expect(!guest.isLetGo)
    try waitUntil("let go") { guest.isLetGo }
    // The engine lives: nobody else may take the guest yet.
    #expect(systems.records.count == 2)
    driver.process.signal(SIGKILL)
    try expectLetGo()
  }

  @Test("A monitor that hangs up when the engine dies is connected to anew")
  func monitorReconnected() throws {
    let driver = try systems.driver(guest.words)
    try waitUntil("frozen") { driver.isFrozen }
    guest.monitor.state.withLock { $0.hangsUp = true }
    driver.process.signal(SIGKILL)
    try waitUntil("let go") { guest.isLetGo }
    try expectLetGo()
  }

  @Test("A guardian that is killed at any moment is replaced by the engine, and the hold is lost")
  func guardianKilled() throws {
    var generator = SeededGenerator(seed: 4)
    for _ in 0..<Needs.rounds {
      let connection = try guest.connection()
      let session = try FreezeSession(
        [], guests: [TestGuest.processors(connection), guest.agentHold], systems.options)
      let guardian = session.guardianProcess
      let delay = UInt32.random(in: 0..<20_000, using: &generator)
      let join = try #require(
        inBackground {
          usleep(delay)
          kill(guardian, SIGKILL)
        })
      _ = try? session.freeze()
      join()
      try waitUntil("lost") { session.isLost }
      // At once, without being asked.
      try waitUntil("let go") { guest.isLetGo }
      #expect(try !session.thaw().isHeld)
      #expect(systems.records.isEmpty)
    }
  }

  @Test(
    "A guardian that is killed in the middle of a stop doesn't lead to a resume of a stopped guest")
  func guardianKilledForeign() throws {
    guest.monitor.state.withLock { ($0.isRunning, $0.stopMilliseconds) = (false, 300) }
    let connection = try guest.connection()
    let session = try FreezeSession(
      [], guests: [TestGuest.processors(connection)], systems.options)
    let guardian = session.guardianProcess
    let join = try #require(
      inBackground {
        usleep(100_000)
        kill(guardian, SIGKILL)
      })
    #expect(throws: StrobeError.self) { try session.freeze() }
    join()
    _ = try session.thaw()
    #expect(!guest.monitor.isRunning && !guest.monitor.commands.contains("cont"))
  }

  @Test("A guardian that is stopped is killed and replaced after the deadline")
  func guardianStopped() throws {
    let connection = try guest.connection()
    var options = systems.options
    options.maxFreezeMilliseconds = 300
    let session = try FreezeSession(
      [], guests: [TestGuest.processors(connection), guest.agentHold], options)
    _ = try session.freeze()
    kill(session.guardianProcess, SIGSTOP)
    try waitUntil("let go") { guest.isLetGo }
    #expect(try !session.thaw().isHeld && session.isLost)
    #expect(systems.records.isEmpty)
  }

  @Test(
    "What a death of both left is let go by hand, by socket or all of it", arguments: [true, false])
  func bothKilled(isNamed: Bool) throws {
    let driver = try systems.driver(guest.words)
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    #expect(try repair.thawAll().isEmpty)
    let sockets = [guest.monitor.path, guest.agent.path]
    for result in repair.thaw(sockets, force: false) {
      #expect(throws: StrobeError.self) { try result.get() }
    }
    driver.process.signal(SIGSTOP)
    kill(guardian, SIGKILL)
    driver.process.signal(SIGKILL)
    driver.process.wait()
    try systems.awaitFreeRecords()
    #expect(guest.agent.isFrozen && !guest.monitor.isRunning && systems.records.count == 2)
    // A pass takes it for somebody else's, and leaves record and freeze.
    do {
      let session = try FreezeSession([], guests: [guest.agentHold], systems.options)
      let results = try session.freeze()
      #expect(results.map(\.outcome) == [.alreadyFrozen] && results[0].isLeftBehind)
      _ = try session.thaw()
    }
    #expect(guest.agent.isFrozen && systems.records.count == 2)
    // Processors first: an agent can't answer without.
    let results = try isNamed ? repair.thaw(sockets, force: false) : repair.thawAll()
    let repairs = try results.map { try $0.get() }
    #expect(repairs.map(\.mountPoint) == sockets && repairs.allSatisfy { $0.outcome == .thawed })
    #expect(repairs.map(\.kind) == [.processors, .agent])
    #expect(guest.isLetGo && systems.records.isEmpty)
    #expect(try repair.thawAll().isEmpty)
    let refused = try #require(throws: StrobeError.self) {
      try repair.thaw([guest.agent.path], force: false)[0].get()
    }
    #expect(refused.reason == .refused)
  }

  @Test("A record of a guest that is gone is cleared away")
  func gone() throws {
    let driver = try systems.driver(["agent=" + guest.agent.path])
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    driver.process.signal(SIGSTOP)
    kill(guardian, SIGKILL)
    driver.process.signal(SIGKILL)
    driver.process.wait()
    try systems.awaitFreeRecords()
    guest.agent.stop()
    let repairs = LeftFrozen(recordFolder: systems.recordFolder)
      .thaw([guest.agent.path], force: false)
    #expect(try repairs.map { try $0.get().outcome } == [.gone])
    #expect(systems.records.isEmpty)
  }
}

@Suite("strobe thaw of a guest")
struct GuestThawTests {
  private let systems = TestFileSystems()

  private func thaw(_ words: String...) throws -> Shell.Result {
    try Shell.capture([Needs.strobe, "thaw"] + words, environment: ["LC_ALL": "C"])
  }

  @Test("Refuses a guest that nobody left or a pass holds, and thaws one that was left")
  func whole() throws {
    let guest = try TestGuest(systems)
    let sockets = [guest.monitor.path, guest.agent.path]
    for socket in sockets {
      let refused = try thaw(socket)
      #expect(refused.status == 1 && refused.errors.contains("no snapshot left"), "\(refused)")
    }
    let driver = try systems.driver(guest.words, records: FreezeRecord.defaultFolder)
    defer {
      for socket in sockets {
        _ = unsafe unlink(FreezeRecord.path(ofGuest: socket, in: FreezeRecord.defaultFolder))
      }
    }
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    let busy = try thaw(guest.agent.path, "--force")
    #expect(busy.status == 1 && busy.errors.contains("process \(driver.process.id)"), "\(busy)")
    driver.process.signal(SIGSTOP)
    kill(guardian, SIGKILL)
    driver.process.signal(SIGKILL)
    driver.process.wait()
    try waitUntil("free") { try thaw(sockets[0]).output == "Resumed the guest of \(sockets[0]).\n" }
    var thawed: Shell.Result?
    try waitUntil("free") {
      let result = try thaw(sockets[1], "--json")
      thawed = result
      return result.status == 0
    }
    #expect(thawed?.output.contains("\"kind\"") == true, "\(String(describing: thawed))")
    #expect(thawed?.output.contains("\"thawed\"") == true)
    #expect(guest.isLetGo)
  }
}
