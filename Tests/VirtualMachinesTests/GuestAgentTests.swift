import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import VirtualMachines

/// For what is expected to be answered, in milliseconds: a slow machine is no failure.
private let patience = 60_000

@Suite("A guest agent")
struct GuestAgentTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let fake: FakeAgent

  init() throws { fake = try FakeAgent(folder.file("agent.sock")) }

  private func connect() throws -> GuestAgent {
    try GuestAgent(connecting: fake.path, milliseconds: patience)
  }

  /// What the agent does at a command instead of answering it.
  private func instead(
    of command: String, _ body: @escaping @Sendable (LineServer.Client) -> Bool
  ) {
    fake.state.withLock { $0.instead = { name, client in name == command && body(client) } }
  }

  private func errno(_ body: () throws -> Void) throws -> Int32 {
    try #require(throws: StrobeError.self) { try body() }.errno
  }

  @Test("Freezes and thaws, and says how many")
  func plain() throws {
    let agent = try connect()
    try agent.ping(milliseconds: patience)
    #expect(try !agent.isFrozen(milliseconds: patience))
    #expect(try agent.freeze(milliseconds: patience) == 2)
    #expect(agent.mayBeFrozen && fake.isFrozen)
    #expect(try agent.isFrozen(milliseconds: patience))
    #expect(try agent.thaw(milliseconds: patience) == 2)
    #expect(!agent.mayBeFrozen && !fake.isFrozen)
    #expect(try agent.thaw(milliseconds: patience) == 0)
  }

  @Test("Whatever comes before the answer to the synchronisation is skipped")
  func noise() throws {
    let noise: [[UInt8]] = [
      Array("{\"return\": 17}\n".utf8), Array("{\"return\": \"frozen\"}\n{\"ret".utf8),
      Array("garbage \u{0} \\ \" \n\n\r\n".utf8), [0xff, 0xff, 0x0a, 0xff],
      Array("{\"error\": {\"class\": \"GenericError\", \"desc\": \"late\"}}\n".utf8),
      [UInt8](repeating: UInt8(ascii: "["), count: 100_000) + [0x0a],
      Array("{\"a\":".utf8) + [UInt8](repeating: UInt8(ascii: "["), count: 10_000) + [0xff],
    ]
    let agent = try connect()
    for bytes in noise {
      instead(of: "guest-sync-delimited") { client in
        client.send(bytes)
        return false
      }
      #expect(try agent.freeze(milliseconds: patience) == 2, "\(bytes.prefix(40))")
      #expect(try agent.thaw(milliseconds: patience) == 2)
    }
  }

  @Test("What an earlier client left, half a command and replies that nobody read, is skipped")
  func earlierClient() throws {
    do {
      let other = try LineSocket(connecting: fake.path, milliseconds: patience)
      try other.send(
        Array("{\"execute\":\"guest-ping\"}\n{\"execute\":\"guest-fsf".utf8), milliseconds: patience
      )
      usleep(20_000)
      // On the same connection, as if it were inherited in the middle of a line.
      let agent = GuestAgent(inheriting: dup(other.number), path: fake.path)
      #expect(try agent.freeze(milliseconds: patience) == 2)
    }
    #expect(try connect().thaw(milliseconds: patience) == 2)
  }

  @Test("Replies that come twice are no answers to what is asked next")
  func twice() throws {
    let agent = try connect()
    let shared = fake
    fake.state.withLock {
      $0.instead = { name, client in
        if name == "guest-fsfreeze-freeze" { client.send("{\"return\": 2}\n") }
        if name == "guest-fsfreeze-status" { client.send("{\"return\": \"thawed\"}\n") }
        return false
      }
    }
    #expect(try agent.freeze(milliseconds: patience) == 2)
    #expect(try agent.thaw(milliseconds: patience) == 2)
    #expect(try !agent.isFrozen(milliseconds: patience))
    #expect(try !agent.isFrozen(milliseconds: patience))
    #expect(!shared.isFrozen)
  }

  @Test("A thaw whose hooks take long is asked for again, and its own count is the answer")
  func slowThaw() throws {
    let agent = try connect()
    agent.resendMilliseconds = 100
    #expect(try agent.freeze(milliseconds: patience) == 2)
    instead(of: "guest-fsfreeze-thaw") { _ in
      usleep(250_000)
      return false
    }
    #expect(try agent.thaw(milliseconds: patience) == 2)
    #expect(!agent.mayBeFrozen && !fake.isFrozen)
    // What was asked for again is still to be answered, and is no answer to this one.
    fake.state.withLock { $0.instead = nil }
    #expect(try agent.freeze(milliseconds: patience) == 2)
    #expect(try agent.thaw(milliseconds: patience) == 2)
  }

  @Test("An agent that lost a thaw with half a command in its hands thaws at the next one")
  func restarted() throws {
    let agent = try connect()
    agent.resendMilliseconds = 100
    #expect(try agent.freeze(milliseconds: patience) == 2)
    let lost = Atomic<Int>(2)
    fake.state.withLock {
      $0.instead = { name, client in
        guard name == "guest-fsfreeze-thaw" else { return false }
        return lost.wrappingSubtract(1, ordering: .relaxed).oldValue > 0
      }
    }
    #expect(try agent.thaw(milliseconds: patience) == 2)
    #expect(!agent.mayBeFrozen && !fake.isFrozen)
  }

  @Test("The answer to a synchronisation that comes twice is no count")
  func synchronizationTwice() throws {
    let server = try LineServer(folder.file("twice.sock")) { line, client in
      let text = String(decoding: line.drop { $0 == 0xff }, as: UTF8.self)
      let isThaw = text.contains("thaw")
      guard text.contains("sync") else { return client.send("{\"return\": \(isThaw ? 3 : 4)}\n") }
      let id = text.filter(\.isNumber)
      client.send("{\"return\": \(id)}\n{\"return\": \(id)}\n")
    }
    defer { server.stop() }
    let agent = try GuestAgent(connecting: server.path, milliseconds: patience)
    #expect(try agent.freeze(milliseconds: patience) == 4)
    #expect(try agent.thaw(milliseconds: patience) == 3)
  }

  @Test("One that hangs costs its time limit, and is not asked to freeze")
  func hung() throws {
    let agent = try connect()
    fake.state.withLock { $0.isHung = true }
    let start = monotonicMilliseconds()
    #expect(try errno { _ = try agent.freeze(milliseconds: 200) } == ETIMEDOUT)
    #expect(monotonicMilliseconds() - start >= 200 && !agent.mayBeFrozen)
    fake.state.withLock { $0.isHung = false }
    try agent.ping(milliseconds: patience)
    #expect(!fake.commands.contains("guest-fsfreeze-freeze"))
  }

  /// Until a freeze has come into effect, and a thaw after it.
  private func waitForThaw(_ fake: FakeAgent) {
    while !fake.commands.contains("guest-fsfreeze-thaw") || fake.isFrozen { usleep(1000) }
  }

  @Test("A freeze that comes too late is followed by a thaw")
  func late() throws {
    let agent = try connect()
    let shared = fake
    let isGivenUp = CancellationFlag()
    instead(of: "guest-fsfreeze-freeze") { _ in
      while !isGivenUp.isCancelled { usleep(1000) }
      return false
    }
    // Enough for the synchronisation before it, on a slow machine, too.
    #expect(try errno { _ = try agent.freeze(milliseconds: 3000) } == ETIMEDOUT)
    isGivenUp.cancel()
    #expect(agent.mayBeFrozen)
    waitForThaw(shared)
    // And asked again it says so.
    #expect(try agent.thaw(milliseconds: patience) == 0 && !agent.mayBeFrozen)
  }

  @Test("A freeze that is cancelled is followed by a thaw")
  func cancelled() throws {
    let agent = try connect()
    let (stop, shared) = (CancellationFlag(), fake)
    instead(of: "guest-fsfreeze-freeze") { _ in
      stop.cancel()
      usleep(300_000)
      return false
    }
    let error = try #require(throws: StrobeError.self) {
      _ = try agent.freeze(milliseconds: 60_000, stop: stop)
    }
    #expect(error.reason == .cancelled && agent.mayBeFrozen)
    waitForThaw(shared)
  }

  @Test("One that is gone is said to be gone")
  func gone() throws {
    let agent = try connect()
    instead(of: "guest-fsfreeze-freeze") { client in
      client.end()
      return true
    }
    #expect(try errno { _ = try agent.freeze(milliseconds: patience) } == ECONNRESET)
    #expect(agent.mayBeFrozen)
    #expect(try errno { _ = try agent.thaw(milliseconds: patience) } == ECONNRESET)
    fake.stop()
    #expect(throws: StrobeError.self) { try connect() }
  }

  @Test("A line without an end, and lines without end, are given up")
  func endless() throws {
    for (text, code, limit) in [
      (String(repeating: "x", count: 4096), EMSGSIZE, patience), ("{}\n", ETIMEDOUT, 700),
    ] {
      let isOver = CancellationFlag()
      let server = try LineServer(folder.file("endless-\(code).sock")) { _, client in
        while !isOver.isCancelled { client.send(text) }
      }
      do {
        let agent = try GuestAgent(connecting: server.path, milliseconds: patience)
        #expect(try errno { try agent.synchronize(milliseconds: limit) } == code)
      }
      isOver.cancel()
      server.stop()
    }
  }

  @Test("A second client gets no answer until the first one leaves")
  func second() throws {
    var first: GuestAgent? = try connect()
    try first?.ping(milliseconds: patience)
    let second = try connect()
    #expect(try errno { try second.synchronize(milliseconds: 200) } == ETIMEDOUT)
    first = nil
    try second.synchronize(milliseconds: patience)
  }

  @Test("What it can't do, and what others froze, is told apart")
  func refused() throws {
    let agent = try connect()
    fake.state.withLock { $0.disabled = ["guest-fsfreeze-freeze"] }
    #expect(try errno { _ = try agent.freeze(milliseconds: patience) } == ENOTSUP)
    #expect(!agent.mayBeFrozen)
    fake.state.withLock { $0.disabled = [] }
    _ = try agent.freeze(milliseconds: patience)
    #expect(try errno { _ = try agent.freeze(milliseconds: patience) } == EBUSY)
    _ = try agent.thaw(milliseconds: patience)
    instead(of: "guest-fsfreeze-freeze") { client in
      client.send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"hook\\u001b failed\"}}\n")
      return true
    }
    let error = try #require(throws: StrobeError.self) { try agent.freeze(milliseconds: patience) }
    #expect(error.errno == EIO && error.message.contains("hook  failed") && !agent.mayBeFrozen)
    #expect(fake.commands.last == "guest-fsfreeze-thaw")
  }

  @Test("A thaw that fails because the guest ended the freeze by itself thawed nothing")
  func ownLimit() throws {
    let agent = try connect()
    _ = try agent.freeze(milliseconds: patience)
    let shared = fake
    instead(of: "guest-fsfreeze-thaw") { client in
      client.send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"limited to 10 s\"}}\n")
      return true
    }
    let error = try #require(throws: StrobeError.self) { try agent.thaw(milliseconds: patience) }
    #expect(error.errno == EIO && error.message.contains("limited") && agent.mayBeFrozen)
    shared.state.withLock { $0.isFrozen = false }
    #expect(try agent.thaw(milliseconds: patience) == 0 && !agent.mayBeFrozen)
  }
}

@Suite(
  "qemu-ga itself",
  .enabled(
    if: Machine.hasLoopDevices && Machine.has("qemu-ga", "mkfs.ext4"),
    "needs root, loop devices, qemu-ga and mkfs.ext4"))
struct RealAgentTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  /// An agent that can freeze nothing but what is named to it: else it would freeze this machine's `/`. Its thaw
  /// thaws whatever it sees mounted; so it is shown no loop device but the one of this test.
  private func start(_ mountPoint: String) throws -> RunningProcess {
    let socket = folder.file("ga.sock")
    let script = """
      others() { grep '^/dev/loop' /proc/self/mounts | cut -d' ' -f2 | grep -vx '\(mountPoint)'; }
      for round in 1 2 3; do
        others | while read -r place; do umount --lazy "$(printf '%b' "$place")"; done
      done
      if others; then exit 1; fi
      exec qemu-ga -m unix-listen -p \(socket) -t \(folder.path) -f \(folder.file("ga.pid")) \
        -b guest-fsfreeze-freeze
      """
    let process = try RunningProcess([
      "unshare", "--mount", "--propagation", "private", "sh", "-c", script,
    ])
    try process.waitUntilListening(at: socket)
    return process
  }

  private func connect() throws -> GuestAgent {
    try GuestAgent(connecting: folder.file("ga.sock"), milliseconds: patience)
  }

  @Test("Is synchronised with, freezes a mount, and thaws what a dead client left")
  func whole() throws {
    let system = try MountedFileSystem(
      "ext4", on: LoopDevice(size: 32 << 20, in: folder), in: folder)
    let mountPoint = system.path
    let process = try start(mountPoint)
    defer {
      process.signal(SIGKILL)
      process.wait()
      // Whatever failed: what is frozen can't be unmounted by halves.
      _ = try? Shell.capture(["fsfreeze", "--unfreeze", mountPoint])
    }
    do {
      let agent = try connect()
      try agent.ping(milliseconds: patience)
      #expect(try !agent.isFrozen(milliseconds: patience))
      let refused = try #require(throws: StrobeError.self) {
        try agent.freeze(milliseconds: patience)
      }
      #expect(refused.errno == ENOTSUP && refused.message.contains("disabled"), "\(refused)")
      #expect(try agent.freeze(mountPoints: [folder.path], milliseconds: patience) == 0)
      _ = try agent.thaw(milliseconds: patience)
      #expect(try agent.freeze(mountPoints: [mountPoint], milliseconds: patience) == 1)
      #expect(try agent.isFrozen(milliseconds: patience))
      let again = try #require(throws: StrobeError.self) {
        try agent.freeze(mountPoints: [mountPoint], milliseconds: patience)
      }
      #expect(again.errno == EBUSY, "\(again)")
    }
    do {
      let agent = try connect()
      #expect(try agent.isFrozen(milliseconds: patience))
      #expect(try agent.thaw(milliseconds: patience) == 1)
      #expect(try agent.thaw(milliseconds: patience) == 0)
    }
  }
}
