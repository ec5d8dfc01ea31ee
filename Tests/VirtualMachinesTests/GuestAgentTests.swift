import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import VirtualMachines

@Suite("A guest agent")
struct GuestAgentTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let fake: FakeAgent

  init() throws { fake = try FakeAgent(folder.file("agent.sock")) }

  private func connect() throws -> GuestAgent {
    try GuestAgent(connecting: fake.path, milliseconds: 1000)
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
    try agent.ping(milliseconds: 1000)
    #expect(try !agent.isFrozen(milliseconds: 1000))
    #expect(try agent.freeze(milliseconds: 1000) == 2)
    #expect(agent.mayBeFrozen && fake.isFrozen)
    #expect(try agent.isFrozen(milliseconds: 1000))
    #expect(try agent.thaw(milliseconds: 1000) == 2)
    #expect(!agent.mayBeFrozen && !fake.isFrozen)
    #expect(try agent.thaw(milliseconds: 1000) == 0)
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
      #expect(try agent.freeze(milliseconds: 1000) == 2, "\(bytes.prefix(40))")
      #expect(try agent.thaw(milliseconds: 1000) == 2)
    }
  }

  @Test("What an earlier client left, half a command and replies that nobody read, is skipped")
  func earlierClient() throws {
    do {
      let other = try LineSocket(connecting: fake.path, milliseconds: 1000)
      try other.send(
        Array("{\"execute\":\"guest-ping\"}\n{\"execute\":\"guest-fsf".utf8), milliseconds: 1000)
      usleep(20_000)
      // On the same connection, as if it were inherited in the middle of a line.
      let agent = GuestAgent(inheriting: dup(other.number), path: fake.path)
      #expect(try agent.freeze(milliseconds: 1000) == 2)
    }
    #expect(try connect().thaw(milliseconds: 1000) == 2)
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
    #expect(try agent.freeze(milliseconds: 1000) == 2)
    #expect(try agent.thaw(milliseconds: 1000) == 2)
    #expect(try !agent.isFrozen(milliseconds: 1000))
    #expect(try !agent.isFrozen(milliseconds: 1000))
    #expect(!shared.isFrozen)
  }

  @Test("A thaw whose hooks take long is asked for again, and its own count is the answer")
  func slowThaw() throws {
    let agent = try connect()
    agent.resendMilliseconds = 100
    #expect(try agent.freeze(milliseconds: 1000) == 2)
    instead(of: "guest-fsfreeze-thaw") { _ in
      usleep(250_000)
      return false
    }
    #expect(try agent.thaw(milliseconds: 10_000) == 2)
    #expect(!agent.mayBeFrozen && !fake.isFrozen)
    // What was asked for again is still to be answered, and is no answer to this one.
    fake.state.withLock { $0.instead = nil }
    #expect(try agent.freeze(milliseconds: 10_000) == 2)
    #expect(try agent.thaw(milliseconds: 10_000) == 2)
  }

  @Test("An agent that lost a thaw with half a command in its hands thaws at the next one")
  func restarted() throws {
    let agent = try connect()
    agent.resendMilliseconds = 100
    #expect(try agent.freeze(milliseconds: 1000) == 2)
    let lost = Atomic<Int>(2)
    fake.state.withLock {
      $0.instead = { name, client in
        guard name == "guest-fsfreeze-thaw" else { return false }
        return lost.wrappingSubtract(1, ordering: .relaxed).oldValue > 0
      }
    }
    #expect(try agent.thaw(milliseconds: 10_000) == 2)
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
    let agent = try GuestAgent(connecting: server.path, milliseconds: 1000)
    #expect(try agent.freeze(milliseconds: 1000) == 4)
    #expect(try agent.thaw(milliseconds: 1000) == 3)
  }

  @Test("One that hangs costs its time limit, and is not asked to freeze")
  func hung() throws {
    let agent = try connect()
    fake.state.withLock { $0.isHung = true }
    let start = monotonicMilliseconds()
    #expect(try errno { _ = try agent.freeze(milliseconds: 200) } == ETIMEDOUT)
    #expect((200..<2000).contains(monotonicMilliseconds() - start) && !agent.mayBeFrozen)
    fake.state.withLock { $0.isHung = false }
    try agent.ping(milliseconds: 1000)
    #expect(!fake.commands.contains("guest-fsfreeze-freeze"))
  }

  @Test("A freeze that comes too late is followed by a thaw")
  func late() throws {
    let agent = try connect()
    let shared = fake
    instead(of: "guest-fsfreeze-freeze") { _ in
      usleep(400_000)
      return false
    }
    #expect(try errno { _ = try agent.freeze(milliseconds: 200) } == ETIMEDOUT)
    #expect(agent.mayBeFrozen)
    while !shared.commands.contains("guest-fsfreeze-thaw") { usleep(1000) }
    usleep(20_000)
    #expect(!shared.isFrozen)
    // And asked again it says so.
    #expect(try agent.thaw(milliseconds: 1000) == 0 && !agent.mayBeFrozen)
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
    while !shared.commands.contains("guest-fsfreeze-thaw") { usleep(1000) }
    usleep(20_000)
    #expect(!shared.isFrozen)
  }

  @Test("One that is gone is said to be gone")
  func gone() throws {
    let agent = try connect()
    instead(of: "guest-fsfreeze-freeze") { client in
      client.end()
      return true
    }
    #expect(try errno { _ = try agent.freeze(milliseconds: 5000) } == ECONNRESET)
    #expect(agent.mayBeFrozen)
    #expect(try errno { _ = try agent.thaw(milliseconds: 1000) } == ECONNRESET)
    fake.stop()
    #expect(throws: StrobeError.self) { try connect() }
  }

  @Test("A line without an end, and lines without end, are given up")
  func endless() throws {
    let isOver = CancellationFlag()
    for (text, code) in [(String(repeating: "x", count: 4096), EMSGSIZE), ("{}\n", ETIMEDOUT)] {
      let server = try LineServer(folder.file("endless-\(code).sock")) { _, client in
        let end = monotonicMilliseconds() + 5000
        while monotonicMilliseconds() < end && !isOver.isCancelled { client.send(text) }
      }
      do {
        let agent = try GuestAgent(connecting: server.path, milliseconds: 1000)
        #expect(try errno { try agent.synchronize(milliseconds: 700) } == code)
      }
      server.stop()
    }
    isOver.cancel()
  }

  @Test("A second client gets no answer until the first one leaves")
  func second() throws {
    var first: GuestAgent? = try connect()
    try first?.ping(milliseconds: 1000)
    let second = try connect()
    #expect(try errno { try second.synchronize(milliseconds: 200) } == ETIMEDOUT)
    first = nil
    try second.synchronize(milliseconds: 1000)
  }

  @Test("What it can't do, and what others froze, is told apart")
  func refused() throws {
    let agent = try connect()
    fake.state.withLock { $0.disabled = ["guest-fsfreeze-freeze"] }
    #expect(try errno { _ = try agent.freeze(milliseconds: 1000) } == ENOTSUP)
    #expect(!agent.mayBeFrozen)
    fake.state.withLock { $0.disabled = [] }
    _ = try agent.freeze(milliseconds: 1000)
    #expect(try errno { _ = try agent.freeze(milliseconds: 1000) } == EBUSY)
    _ = try agent.thaw(milliseconds: 1000)
    instead(of: "guest-fsfreeze-freeze") { client in
      client.send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"hook\\u001b failed\"}}\n")
      return true
    }
    let error = try #require(throws: StrobeError.self) { try agent.freeze(milliseconds: 1000) }
    #expect(error.errno == EIO && error.message.contains("hook  failed") && !agent.mayBeFrozen)
    #expect(fake.commands.last == "guest-fsfreeze-thaw")
  }

  @Test("A thaw that fails because the guest ended the freeze by itself thawed nothing")
  func ownLimit() throws {
    let agent = try connect()
    _ = try agent.freeze(milliseconds: 1000)
    let shared = fake
    instead(of: "guest-fsfreeze-thaw") { client in
      client.send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"limited to 10 s\"}}\n")
      return true
    }
    let error = try #require(throws: StrobeError.self) { try agent.thaw(milliseconds: 1000) }
    #expect(error.errno == EIO && error.message.contains("limited") && agent.mayBeFrozen)
    shared.state.withLock { $0.isFrozen = false }
    #expect(try agent.thaw(milliseconds: 1000) == 0 && !agent.mayBeFrozen)
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
    while unsafe access(socket, F_OK) != 0 { usleep(1000) }
    return process
  }

  private func connect() throws -> GuestAgent {
    while true {
      do throws(StrobeError) {
        return try GuestAgent(connecting: folder.file("ga.sock"), milliseconds: 1000)
      } catch {
        // Between the name and the listening.
        guard error.reason == .notFound else { throw error }
        usleep(1000)
      }
    }
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
      try agent.ping(milliseconds: 5000)
      #expect(try !agent.isFrozen(milliseconds: 5000))
      let refused = try #require(throws: StrobeError.self) { try agent.freeze(milliseconds: 5000) }
      #expect(refused.errno == ENOTSUP && refused.message.contains("disabled"), "\(refused)")
      #expect(try agent.freeze(mountPoints: [folder.path], milliseconds: 5000) == 0)
      _ = try agent.thaw(milliseconds: 5000)
      #expect(try agent.freeze(mountPoints: [mountPoint], milliseconds: 5000) == 1)
      #expect(try agent.isFrozen(milliseconds: 5000))
      let again = try #require(throws: StrobeError.self) {
        try agent.freeze(mountPoints: [mountPoint], milliseconds: 5000)
      }
      #expect(again.errno == EBUSY, "\(again)")
    }
    do {
      let agent = try connect()
      #expect(try agent.isFrozen(milliseconds: 5000))
      #expect(try agent.thaw(milliseconds: 5000) == 1)
      #expect(try agent.thaw(milliseconds: 5000) == 0)
    }
  }
}
