import Glibc
import Platform
import Quiescing
import TestSupport
import Testing
import VirtualMachines

@Suite(
  "Processors of QEMU itself",
  .enabled(if: Machine.has("qemu-system-x86_64"), "needs qemu-system-x86_64"))
struct RealProcessorTests {
  private let systems = TestFileSystems()

  /// A guest without an operating system, and a second monitor to look at it.
  private func start() throws -> (process: RunningProcess, monitor: String, other: LineSocket) {
    let (monitor, other) = (systems.folder.file("qmp.sock"), systems.folder.file("other.sock"))
    let process = try RunningProcess([
      "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
      "-m", "16",
      "-qmp", "unix:\(monitor),server=on,wait=off", "-qmp", "unix:\(other),server=on,wait=off",
    ])
    try process.waitUntilListening(at: monitor, other)
    return (process, monitor, try negotiated(other))
  }

  private func negotiated(_ path: String) throws -> LineSocket {
    let socket = try connected(path)
    _ = try socket.line(until: monotonicMilliseconds() + 20_000)
    _ = try ask(socket, "qmp_capabilities")
    return socket
  }

  /// The name is there a moment before anybody listens.
  private func connected(_ path: String) throws -> LineSocket {
    let deadline = monotonicMilliseconds() + 20_000
    while true {
      do throws(StrobeError) {
        return try LineSocket(connecting: path, milliseconds: 20_000)
      } catch {
        guard error.reason == .notFound, monotonicMilliseconds() < deadline else { throw error }
        usleep(1000)
      }
    }
  }

  /// The reply; events are skipped.
  private func ask(_ socket: LineSocket, _ command: String) throws -> JSONValue {
    try socket.send(Array("{\"execute\": \"\(command)\"}\n".utf8), milliseconds: 20_000)
    while let line = try socket.line(until: monotonicMilliseconds() + 20_000) {
      if let value = JSONValue(decoding: line)?["return"] { return value }
    }
    throw StrobeError(.busy, "no reply to \(command)")
  }

  private func status(_ socket: LineSocket) throws -> String? {
    try ask(socket, "query-status")["status"]?.text
  }

  @Test("Are stopped and resumed by the guardian, and nobody's stop is undone")
  func whole() throws {
    let (process, monitor, other) = try start()
    defer { process.signal(SIGKILL) }
    let connection = try negotiated(monitor)
    for wasRunning in [true, false] {
      if !wasRunning { _ = try ask(other, "stop") }
      let session = try FreezeSession(
        [], guests: [TestGuest.processors(connection)], systems.options)
      let outcome = try #require(try session.freeze().first?.outcome)
      #expect(wasRunning ? outcome.isFrozen : outcome == .alreadyFrozen)
      #expect(try status(other) == "paused")
      #expect(try session.thaw().isHeld)
      #expect(try status(other) == (wasRunning ? "running" : "paused"))
    }
    _ = try ask(other, "cont")
    let session = try FreezeSession([], guests: [TestGuest.processors(connection)], systems.options)
    _ = try session.freeze()
    _ = try ask(other, "cont")
    #expect(try !session.thaw().isHeld)
    #expect(try status(other) == "running" && systems.records.isEmpty)
  }

  @Test(
    "Are resumed when the engine is killed, also in the middle of a command",
    arguments: ["hold", "midline"])
  func engineKilled(way: String) throws {
    let (process, monitor, other) = try start()
    defer { process.signal(SIGKILL) }
    let driver = try systems.driver(["monitor=" + monitor], way: way)
    try waitUntil("frozen") { driver.isFrozen }
    #expect(try status(other) == "paused")
    driver.process.signal(SIGKILL)
    try waitUntil("resumed") { try status(other) == "running" }
    try waitUntil("record gone") { systems.records.isEmpty }
  }

  @Test(
    "Are resumed at the deadline when the engine is stopped, also in the middle of a command",
    arguments: ["hold", "midline"])
  func engineStopped(way: String) throws {
    let (process, monitor, other) = try start()
    defer { process.signal(SIGKILL) }
    let driver = try systems.driver(["monitor=" + monitor], milliseconds: 700, way: way)
    try waitUntil("frozen") { driver.isFrozen }
    driver.process.signal(SIGSTOP)
    #expect(try status(other) == "paused")
    try waitUntil("resumed") { try status(other) == "running" }
    driver.process.signal(SIGKILL)
    try waitUntil("record gone") { systems.records.isEmpty }
    #expect(try status(other) == "running")
  }

  @Test("Are resumed by the engine when the guardian is killed, and by hand when both are")
  func guardianKilled() throws {
    let (process, monitor, other) = try start()
    defer { process.signal(SIGKILL) }
    do {
      let connection = try negotiated(monitor)
      let session = try FreezeSession(
        [], guests: [TestGuest.processors(connection)], systems.options)
      _ = try session.freeze()
      #expect(try status(other) == "paused")
      kill(session.guardianProcess, SIGKILL)
      try waitUntil("resumed") { try status(other) == "running" }
      #expect(try !session.thaw().isHeld)
    }
    let driver = try systems.driver(["monitor=" + monitor])
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    driver.process.signal(SIGSTOP)
    kill(guardian, SIGKILL)
    driver.process.signal(SIGKILL)
    driver.process.wait()
    try systems.awaitFreeRecords()
    #expect(try status(other) == "paused")
    let repairs = LeftFrozen(recordFolder: systems.recordFolder).thaw([monitor], force: false)
    #expect(try repairs.map { try $0.get().outcome } == [.thawed])
    #expect(try status(other) == "running" && systems.records.isEmpty)
  }
}
