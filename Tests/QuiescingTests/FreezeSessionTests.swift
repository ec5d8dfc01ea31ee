import BlockDevices
import CLinux
import Glibc
import Platform
import Quiescing
import TestSupport
import Testing

@Suite("A freeze", .enabled(if: Needs.systems, Needs.comment))
struct FreezeSessionTests {
  private let systems = TestFileSystems()

  @Test("holds writers until the thaw, and leaves nothing", arguments: ["ext4", "xfs", "btrfs"])
  func holds(kind: String) throws {
    let system = try systems.fileSystem(kind)
    var session: FreezeSession? = try systems.session(on: [system.device])
    let guardian = try #require(session?.guardianProcess)
    try session?.synchronize()
    let results = try #require(try session?.freeze())
    try #require(results.count == 1)
    guard case .frozen = results[0].outcome else {
      Issue.record("\(results)")
      return
    }
    #expect(systems.records.count == 1)
    let writer = try startWriter(system.mountPoint)
    try waitUntil("blocked") { writer.isBlocked }
    usleep(50_000)
    #expect(writer.isBlocked && session?.isLost == false)
    let window = try #require(try session?.thaw())
    #expect(writer.wait() == 0)
    #expect(window.isHeld && window.brokenBy == nil && window.milliseconds >= 50)
    #expect(try session?.thaw().isHeld == true)
    #expect(systems.records.isEmpty)
    session = nil
    #expect(!isAlive(guardian))
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test(
    "of nested file systems holds and ends without a deadlock", arguments: ["ext4", "xfs", "btrfs"])
  func nested(kind: String) throws {
    let outer = try systems.fileSystem(kind, mebibytes: 1000)
    let inner = try systems.fileSystem("ext4", mebibytes: 400, in: outer.mountPoint)
    let session = try systems.session(on: [outer.device])
    let results = try session.freeze()
    #expect(results.map(\.target.name) == [inner.mountPoint, outer.mountPoint])
    #expect(results.allSatisfy { $0.outcome.isFrozen })
    let writers = try [inner, outer].map { try startWriter($0.mountPoint) }
    for writer in writers { try waitUntil("blocked") { writer.isBlocked } }
    #expect(try session.thaw().isHeld)
    for writer in writers { #expect(writer.wait() == 0) }
  }

  @Test("ends at the deadline while the engine sleeps")
  func deadline() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.maxFreezeMilliseconds = 200
    let session = try systems.session(on: [system.device], options)
    #expect(try session.freeze().first?.outcome.isFrozen == true)
    let writer = try startWriter(system.mountPoint)
    #expect(writer.wait() == 0)
    try waitUntil("lost") { session.isLost }
    let window = try session.thaw()
    #expect(!window.isHeld && window.brokenBy?.contains("200 ms") == true)
    #expect(window.milliseconds >= 150)
    #expect(systems.records.isEmpty)
  }

  @Test("of nothing has a deadline all the same")
  func empty() throws {
    var options = systems.options
    let quick = try FreezeSession([], options)
    #expect(try quick.freeze().isEmpty && quick.thaw().isHeld)
    options.maxFreezeMilliseconds = 50
    let session = try FreezeSession([], options)
    usleep(100_000)
    #expect(!session.isLost)
    #expect(try session.freeze().isEmpty)
    try waitUntil("lost") { session.isLost }
    #expect(try !session.thaw().isHeld)
  }

  @Test("knows why it was lost from the first moment that it is known to be")
  func reasonOfLoss() throws {
    var options = systems.options
    options.maxFreezeMilliseconds = 1
    for _ in 0..<50 {
      let session = try FreezeSession([], options)
      _ = try? session.freeze()
      while !session.isLost {}
      #expect(session.lossReason?.contains("1 ms") == true)
    }
  }

  @Test("leaves alone what somebody else froze")
  func frozenBefore() throws {
    let system = try systems.fileSystem()
    let other = try systems.fileSystem()
    try Shell.run("fsfreeze", "--freeze", system.mountPoint)
    let session = try systems.session(on: [system.device, other.device])
    let results = try session.freeze()
    for result in results {
      if result.target.name == system.mountPoint {
        #expect(result.outcome == .alreadyFrozen)
      } else {
        #expect(result.outcome.isFrozen)
      }
    }
    _ = try session.thaw()
    #expect(try isFrozen(system.mountPoint) && !isFrozen(other.mountPoint))
    #expect(systems.records.isEmpty)
  }

  @Test("that somebody else ends did not hold")
  func foreignThaw() throws {
    let system = try systems.fileSystem()
    let session = try systems.session(on: [system.device])
    _ = try session.freeze()
    try Shell.run("fsfreeze", "--unfreeze", system.mountPoint)
    let window = try session.thaw()
    #expect(!window.isHeld && window.brokenBy?.contains(system.mountPoint) == true)
    #expect(systems.records.isEmpty)
  }

  @Test("of a file system that knows none is said to be unsupported")
  func unsupported() throws {
    let mountPoint = try systems.mount("-t", "tmpfs", "none")
    let mount = try #require(try MountTable.read().first { $0.mountPoint == mountPoint })
    let session = try FreezeSession(
      [
        FileSystemOnDisk(
          mountPoint: mountPoint, fileSystem: "tmpfs", device: mount.device, members: [], depth: 0,
          sources: [0], isReachable: true)
      ], systems.options)
    #expect(try session.freeze().map(\.outcome) == [.unsupported])
    #expect(try session.thaw().isHeld)
  }

  @Test("of one that was unmounted since is said to have vanished")
  func vanished() throws {
    let system = try systems.fileSystem()
    let systemsFound = try found(on: [system.device])
    try systems.unmountNow(system.mountPoint)
    let session = try FreezeSession(systemsFound, systems.options)
    #expect(try session.freeze().map(\.outcome) == [.vanished])
    #expect(try session.thaw().isHeld && systems.records.isEmpty)
  }

  @Test("of one that is unmounted lazily meanwhile is thawed all the same")
  func detached() throws {
    let system = try systems.fileSystem()
    let session = try systems.session(on: [system.device])
    _ = try session.freeze()
    try Shell.run("umount", "--lazy", system.mountPoint)
    #expect(try session.thaw().isHeld)
  }

  @Test("waits for another pass that holds the file system, for as long as it may freeze itself")
  func twoPasses() throws {
    let system = try systems.fileSystem()
    let first = try systems.session(on: [system.device])
    _ = try first.freeze()
    var hasty = systems.options
    hasty.maxFreezeMilliseconds = 100
    let error = try #require(throws: StrobeError.self) {
      try systems.session(on: [system.device], hasty)
    }
    #expect(error.reason == .busy && error.message.contains(system.mountPoint))
    let second = Answer()
    let shared = systems
    let join = try #require(
      inBackground {
        second.set((try? shared.session(on: [system.device]).freeze().first?.outcome) ?? nil)
      })
    usleep(100_000)
    #expect(second.value == nil)
    #expect(try first.thaw().isHeld)
    join()
    #expect(second.value?.isFrozen == true)
    #expect(systems.records.isEmpty)
  }

  @Test("that is abandoned is thawed; giving up twice or before is no matter")
  func abandoned() throws {
    let system = try systems.fileSystem()
    let session = try systems.session(on: [system.device])
    _ = try session.freeze()
    session.abandon()
    session.abandon()
    #expect(try !isFrozen(system.mountPoint))
    let other = try systems.session(on: [system.device])
    other.abandon()
    #expect(throws: StrobeError.self) { try other.freeze() }
    #expect(try !isFrozen(system.mountPoint) && systems.records.isEmpty)
    // Letting go of a frozen one.
    _ = try systems.session(on: [system.device]).freeze()
    #expect(try !isFrozen(system.mountPoint) && systems.records.isEmpty)
  }

  @Test("needs a guardian that is one")
  func noGuardian() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    for program in ["/bin/false", "/nonexistent/strobe"] {
      options.guardianExecutable = program
      let error = try #require(throws: StrobeError.self) {
        try systems.session(on: [system.device], options)
      }
      #expect(error.message.contains("guardian"), "\(error)")
    }
    #expect(systems.records.isEmpty)
  }

  @Test(
    "has a guardian that is locked into memory, out of the OOM killer's reach, and holds nothing else"
  )
  func guardian() throws {
    let system = try systems.fileSystem()
    let inherited = try FileDescriptor(opening: "/dev/shm", O_RDONLY)
    _ = fcntl(inherited.number, F_SETFD, 0)
    let session = try systems.session(on: [system.device])
    let guardian = session.guardianProcess
    // Without CAP_SYS_RESOURCE it can't be had.
    let probe = try Shell.capture(["sh", "-c", "echo -1000 > /proc/self/oom_score_adj"])
    #expect((readText("/proc/\(guardian)/oom_score_adj") == "-1000") == (probe.status == 0))
    #expect(!session.warnings.contains { $0.contains("memory is not locked") })
    let status = try #require(readText("/proc/\(guardian)/status"))
    let locked = status.split(separator: "\n").first { $0.hasPrefix("VmLck:") }
    #expect((locked?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) > 1000)
    #expect(try Set(namesInDirectory("/proc/\(guardian)/fd")) == ["0", "1", "2", "3", "4", "5"])
    #expect(resolvedPath("/proc/\(guardian)/cwd") == "/")
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT, SIGUSR1, SIGTSTP] {
      kill(guardian, signal)
    }
    #expect(try session.freeze().first?.outcome.isFrozen == true)
    #expect(try session.thaw().isHeld)
  }
}

extension FreezeOutcome {
  var isFrozen: Bool {
    if case .frozen = self { return true }
    return false
  }
}
