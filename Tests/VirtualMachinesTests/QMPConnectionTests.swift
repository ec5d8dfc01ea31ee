import Glibc
import Platform
import Testing
import VirtualMachines

/// For what is expected to be answered, in milliseconds: a slow machine is no failure.
private let patience = 60_000

@Suite("Connections to QEMU's monitor")
struct QMPConnectionTests {
  @Test("A monitor that doesn't greet has another client")
  func noGreeting() throws {
    let monitor = try FakeMonitor { _ = $0.hear() }
    let error = try #require(throws: StrobeError.self) {
      try QMPConnection(connecting: monitor.path, milliseconds: 100)
    }
    #expect(error.reason == .busy && error.description.contains("--libvirt"), "\(error)")
  }

  @Test("What greets as something else is named")
  func otherGreeting() throws {
    let monitor = try FakeMonitor { client in
      client.sayLine("QEMU 7.2.22 monitor - type 'help' for more information\u{1B}[K")
      _ = client.hear()
    }
    let error = try #require(throws: StrobeError.self) {
      try QMPConnection(connecting: monitor.path, milliseconds: patience)
    }
    #expect(error.reason == .usage && error.message.contains("type 'help'"), "\(error)")
    #expect(!error.message.contains("\u{1B}"))
  }

  @Test("Nobody at the socket is told from no socket")
  func nobody() throws {
    let error = try #require(throws: StrobeError.self) {
      try QMPConnection(connecting: "/dev/shm/strobe-test-none", milliseconds: 100)
    }
    #expect(error.reason == .notFound)
  }

  @Test(
    "Events, foreign answers and unknown fields between are no answers; half lines are put together"
  )
  func mixed() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      let command = client.hear()
      client.sayLine(#"{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1}}"#)
      client.sayLine(#"{"return": {"wrong": 1}, "id": "strobe-guardian"}"#)
      client.sayLine(#"{"error": {"class": "GenericError", "desc": "x"}, "id": "strobe-0"}"#)
      client.sayLine(#"{"news": 7}"#)
      client.sayLine(#"{"event": "NEVER_HEARD_OF", "data": {}}"#)
      let answer =
        (["return": ["right": 1], "id": command?["id"] ?? .null, "more": []]
        as JSONValue).line
      client.say(String(answer.prefix(9)))
      usleep(30_000)
      client.say(String(answer.dropFirst(9)) + "\r")
      usleep(10_000)
      client.say("\n")
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    #expect(try connection.execute("query-x") == ["right": 1])
    #expect(connection.events.map(\.name) == ["RESET", "NEVER_HEARD_OF"])
    #expect(connection.events[0].data == ["guest": true])
  }

  @Test("What QEMU refuses names the command and says why")
  func refused() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      for kind in ["GenericError", "CommandNotFound"] {
        let id = client.hear()?["id"] ?? .null
        client.sayLine(
          (["error": ["class": .string(kind), "desc": "Node 'x' is busy"], "id": id] as JSONValue)
            .line)
      }
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    let error = try #require(throws: StrobeError.self) {
      try connection.execute("blockdev-del", ["node-name": "x"])
    }
    #expect(error.message.contains("blockdev-del") && error.message.contains("Node 'x' is busy"))
    guard case .failure(let answer) = try connection.ask("blockdev-del") else {
      Issue.record("no error")
      return
    }
    #expect(answer.isCommandNotFound)
  }

  @Test(
    "A line that is no JSON ends the command, at once",
    arguments: ["{\"return\": ", "[1]", "\u{FFFD}"])
  func garbage(text: String) throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      _ = client.hear()
      client.sayLine(text)
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    let error = try #require(throws: StrobeError.self) { try connection.execute("query-x") }
    #expect(error.errno == EPROTO && error.message.contains("query-x"), "\(error)")
  }

  @Test("A complaint about what the guardian sent is no answer, but is told when there is none")
  func complaint() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      let complaint = #"{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}"#
      let first = client.hear()
      client.sayLine(complaint)
      client.sayLine(#"{"return": {}, "id": "strobe-guardian"}"#)
      client.answer(first, ["first": true])
      _ = client.hear()
      client.sayLine(complaint)
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    #expect(try connection.execute("query-x") == ["first": true])
    let error = try #require(throws: StrobeError.self) {
      try connection.execute("query-y", milliseconds: 2_000)
    }
    #expect(error.errno == ETIMEDOUT && error.message.contains("stray"), "\(error)")
  }

  @Test("An answer that comes too late isn't taken for the next command's")
  func late() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      let first = client.hear()
      let second = client.hear()
      client.answer(first, ["first": true])
      client.answer(second, ["second": true])
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    let error = try #require(throws: StrobeError.self) {
      try connection.execute("query-x", milliseconds: 50)
    }
    #expect(error.errno == ETIMEDOUT, "\(error)")
    #expect(try connection.execute("query-y") == ["second": true])
  }

  @Test("Whoever waits can be cancelled; what hangs holds nobody up a second time")
  func cancelled() throws {
    let (stop, isOver) = (CancellationFlag(), CancellationFlag())
    let monitor = try FakeMonitor { client in
      client.greet()
      let first = client.hear()
      stop.cancel()
      let second = client.hear()
      // Late, and for nobody; then the guest is itself again.
      while !isOver.isCancelled { usleep(1_000) }
      client.answer(first)
      client.answer(second)
      client.answer(client.hear(), ["third": true])
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    connection.stop = stop
    let error = try #require(throws: StrobeError.self) {
      try connection.execute("query-x", milliseconds: 600_000)
    }
    #expect(error.reason == .cancelled && !connection.isBroken, "\(error)")
    connection.stop = nil
    let late = try #require(throws: StrobeError.self) {
      try connection.execute("query-y", milliseconds: 600_000)
    }
    #expect(late.errno == ETIMEDOUT && late.message.contains("for 10000 ms"), "\(late)")
    isOver.cancel()
    #expect(try connection.execute("query-z", milliseconds: patience) == ["third": true])
  }

  @Test("The end in the middle of an answer is the guest's end, for every later command, too")
  func end() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      _ = client.hear()
      client.say("{\"return\": {")
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    for _ in 0..<2 {
      let error = try #require(throws: StrobeError.self) { try connection.execute("query-x") }
      #expect(error.errno == ECONNRESET || error.errno == EPIPE, "\(error)")
      #expect(error.message.contains("QEMU ended"), "\(error)")
    }
    #expect(connection.isBroken)
  }

  @Test("A monitor that doesn't read costs the limit, and gets to know when it is given up")
  func deaf() throws {
    let isOver = CancellationFlag()
    let monitor = try FakeMonitor { client in
      client.greet()
      while !isOver.isCancelled { usleep(1_000) }
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    let error = try #require(throws: StrobeError.self) {
      try connection.execute(
        "query-x", ["text": .string(String(repeating: "x", count: 4 << 20))], milliseconds: 200)
    }
    #expect(error.errno == EAGAIN && connection.isBroken, "\(error)")
    connection.hangUp()
    // Whoever else holds it, too: a process that inherited it.
    var byte: UInt8 = 0
    #expect(unsafe recv(connection.number, &byte, 1, 0) == 0)
    isOver.cancel()
  }

  @Test("Events are waited for, taken once, and bounded")
  func events() throws {
    let monitor = try FakeMonitor { client in
      client.greet()
      let command = client.hear()
      for number in 0..<3_000 {
        client.sayLine(#"{"event": "TICK", "data": {"number": \#(number)}}"#)
      }
      client.answer(command)
      usleep(20_000)
      client.sayLine(#"{"event": "STOP"}"#)
      _ = client.hear()
    }
    let connection = try QMPConnection(connecting: monitor.path, milliseconds: patience)
    try connection.execute("query-x")
    #expect(connection.events.count <= 1_024)
    #expect(connection.events.last?.data["number"] == 2_999)
    #expect(try connection.waitForEvent(milliseconds: patience) { $0.name == "STOP" } != nil)
    #expect(try connection.waitForEvent(milliseconds: 20) { $0.name == "STOP" } == nil)
  }
}
