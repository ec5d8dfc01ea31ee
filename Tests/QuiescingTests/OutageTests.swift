import CLinux
import Glibc
import Platform
import Quiescing
import TestSupport
import Testing

@Suite("When engine or guardian die", .enabled(if: Needs.systems, Needs.comment))
struct OutageTests {
  private let systems = TestFileSystems()

  private func driver(
    _ devices: [String], milliseconds: Int = 60_000, hook: String = "-", way: String = "hold"
  ) throws -> Driver {
    try systems.driver(devices, milliseconds: milliseconds, hook: hook, way: way)
  }

  /// Waits until no guardian holds a record any more; then nothing may be frozen.
  private func expectThawed(_ mountPoints: [String]) throws {
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    // An engine that died before it had a guardian leaves records that say so.
    try waitUntil("records gone") {
      for result in try repair.thawAll() { #expect(try result.get().outcome == .gone) }
      return systems.records.isEmpty
    }
    for mountPoint in mountPoints { #expect(try !isFrozen(mountPoint), "\(mountPoint)") }
  }

  @Test("An engine that is killed at any moment leaves nothing frozen")
  func engineKilled() throws {
    let outer = try systems.fileSystem("xfs", mebibytes: 700)
    let inner = try systems.fileSystem("ext4", mebibytes: 64, in: outer.mountPoint)
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<Needs.rounds {
      let driver = try driver([outer.device], way: "repeat")
      try waitUntil("ready") { driver.guardian != nil || driver.process.hasEnded }
      usleep(UInt32.random(in: 0..<150_000, using: &generator))
      try #require(!driver.process.hasEnded, "\(driver.text)")
      driver.process.signal(SIGKILL)
      driver.process.wait()
      try expectThawed([inner.mountPoint, outer.mountPoint])
    }
  }

  @Test("An engine that is killed while it is frozen is thawed long before the deadline")
  func engineKilledFrozen() throws {
    let system = try systems.fileSystem()
    let driver = try driver([system.device], milliseconds: 600_000)
    try waitUntil("frozen") { driver.isFrozen }
    let writer = try startWriter(system.mountPoint)
    try waitUntil("blocked") { writer.isBlocked }
    driver.process.signal(SIGKILL)
    #expect(writer.wait() == 0)
    try expectThawed([system.mountPoint])
    let guardian = try #require(driver.guardian)
    try waitUntil("the guardian ends") { !isAlive(guardian) }
  }

  @Test("An engine that is stopped is thawed at the deadline")
  func engineStopped() throws {
    let system = try systems.fileSystem()
    let driver = try driver([system.device], milliseconds: 1500)
    try waitUntil("frozen") { driver.isFrozen }
    driver.process.signal(SIGSTOP)
    let writer = try startWriter(system.mountPoint)
    #expect(writer.wait() == 0)
    #expect(try !isFrozen(system.mountPoint))
    // The engine lives: nobody else may take the file system yet.
    #expect(systems.records.count == 1)
    driver.process.signal(SIGKILL)
    try expectThawed([system.mountPoint])
  }

  @Test("A guardian that is killed at any moment is replaced by the engine, and the freeze is lost")
  func guardianKilled() throws {
    let outer = try systems.fileSystem("xfs", mebibytes: 700)
    let inner = try systems.fileSystem("ext4", mebibytes: 64, in: outer.mountPoint)
    var generator = SeededGenerator(seed: 2)
    var wasLost = 0
    for _ in 0..<Needs.rounds {
      let session = try systems.session(on: [outer.device])
      let guardian = session.guardianProcess
      let delay = UInt32.random(in: 0..<300_000, using: &generator)
      let join = try #require(
        inBackground {
          usleep(delay)
          kill(guardian, SIGKILL)
        })
      var hasThrown = false
      do { _ = try session.freeze() } catch { hasThrown = true }
      join()
      try waitUntil("lost") { session.isLost }
      // At once, without being asked.
      for mountPoint in [inner.mountPoint, outer.mountPoint] {
        try waitUntil("thawed") { try !isFrozen(mountPoint) }
      }
      if hasThrown { wasLost += 1 }
      #expect(try !session.thaw().isHeld)
      #expect(systems.records.isEmpty)
    }
    #expect(wasLost <= Needs.rounds)
  }

  @Test("A guardian that is killed doesn't end what somebody else froze")
  func guardianKilledForeign() throws {
    let system = try systems.fileSystem()
    try Shell.run("fsfreeze", "--freeze", system.mountPoint)
    let session = try systems.session(on: [system.device])
    #expect(try session.freeze().map(\.outcome) == [.alreadyFrozen])
    kill(session.guardianProcess, SIGKILL)
    try waitUntil("lost") { session.isLost }
    _ = try session.thaw()
    #expect(try isFrozen(system.mountPoint))
  }

  @Test("A guardian that is stopped is killed and replaced after the deadline")
  func guardianStopped() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.maxFreezeMilliseconds = 500
    let session = try systems.session(on: [system.device], options)
    _ = try session.freeze()
    kill(session.guardianProcess, SIGSTOP)
    let writer = try startWriter(system.mountPoint)
    #expect(writer.wait() == 0)
    #expect(session.isLost)
    #expect(try !session.thaw().isHeld)
    #expect(systems.records.isEmpty)
  }

  @Test("A guardian that is stopped when it is to freeze doesn't stop the engine")
  func guardianStoppedAtFreeze() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.maxFreezeMilliseconds = 300
    let session = try systems.session(on: [system.device], options)
    kill(session.guardianProcess, SIGSTOP)
    #expect(throws: StrobeError.self) { try session.freeze() }
    #expect(session.isLost)
    #expect(try !session.thaw().isHeld)
    #expect(try !isFrozen(system.mountPoint) && systems.records.isEmpty)
  }

  @Test("A guardian that is stopped when it is to thaw is killed long before the deadline")
  func guardianStoppedAtThaw() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.maxFreezeMilliseconds = 3_600_000
    let session = try systems.session(on: [system.device], options)
    _ = try session.freeze()
    kill(session.guardianProcess, SIGSTOP)
    let window = try session.thaw()
    #expect(!window.isHeld && window.brokenBy?.contains("guardian") == true)
    #expect(try !isFrozen(system.mountPoint) && systems.records.isEmpty)
  }

  @Test(
    "What a death of both left is thawed by hand, and by nobody else", arguments: ["ext4", "btrfs"])
  func bothKilled(kind: String) throws {
    let outer = try systems.fileSystem(kind, mebibytes: 700)
    let inner = try systems.fileSystem("ext4", mebibytes: 64, in: outer.mountPoint)
    let driver = try driver([outer.device])
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    #expect(try repair.thawAll().isEmpty)
    let refused = repair.thaw([inner.mountPoint], force: false)
    #expect(refused.map(\.failure?.reason) == [.busy])
    driver.process.signal(SIGSTOP)
    kill(guardian, SIGKILL)
    try waitUntil("the guardian ends") { !isAlive(guardian) }
    driver.process.signal(SIGKILL)
    driver.process.wait()
    #expect(try isFrozen(outer.mountPoint))
    #expect(systems.records.count == 2)
    // A pass takes it for somebody else's freeze, and leaves record and freeze.
    do {
      let session = try systems.session(on: [inner.device])
      let results = try session.freeze()
      #expect(results.map(\.outcome) == [.alreadyFrozen] && results[0].isLeftBehind)
      _ = try session.thaw()
    }
    #expect(systems.records.count == 2)
    let repairs = try repair.thawAll().map { try $0.get() }
    #expect(Set(repairs.map(\.mountPoint)) == [inner.mountPoint, outer.mountPoint])
    #expect(repairs.allSatisfy { $0.outcome == .thawed })
    try expectThawed([inner.mountPoint, outer.mountPoint])
    #expect(try repair.thawAll().isEmpty)
  }

  @Test("The post-thaw hook is run by the guardian when the engine dies, after the thaw")
  func postThaw() throws {
    let system = try systems.fileSystem()
    let log = systems.folder.file("log")
    // Writing to the file system proves that it is thawed.
    let hook = try script(
      "echo $PHASE >> \(log); echo $PHASE > \(system.mountPoint)/hook; echo end >> \(log)")
    let driver = try driver([system.device], hook: hook)
    try waitUntil("frozen") { driver.isFrozen }
    let guardian = try #require(driver.guardian)
    driver.process.signal(SIGKILL)
    try waitUntil("the guardian ends") { !isAlive(guardian) }
    #expect(readText(log) == "post-thaw\nend")
    try expectThawed([system.mountPoint])
  }

  @Test("A pre-freeze hook that outlives the engine is ended before post-thaw is run")
  func preFreeze() throws {
    let system = try systems.fileSystem()
    let log = systems.folder.file("log")
    let hook = try script(
      """
      if [ $PHASE = pre-freeze ]; then echo $$ > \(log).pid; mv \(log).pid \(log).started; sleep 600; fi
      state=$(cut -d' ' -f3 /proc/$(cat \(log).started)/stat 2>/dev/null)
      case "$state" in Z | '') ;; *) echo alive >> \(log) ;; esac
      echo $PHASE >> \(log)
      """)
    let driver = try driver([system.device], hook: hook, way: "prefreeze")
    try waitUntil("started") { readText(log + ".started") != nil }
    let guardian = try #require(driver.guardian)
    driver.process.signal(SIGKILL)
    try waitUntil("the guardian ends") { !isAlive(guardian) }
    #expect(readText(log) == "post-thaw")
    try expectThawed([system.mountPoint])
  }

  @Test("Hooks that finished are not run again")
  func finished() throws {
    let log = systems.folder.file("log")
    let hook = HookCommand(program: try script("echo ran >> \(log)"), environment: [:])
    for isFinished in [true, false] {
      var session: FreezeSession? = try FreezeSession([], postThaw: hook, systems.options)
      let guardian = try #require(session?.guardianProcess)
      session?.hooksStarted()
      _ = try session?.freeze()
      _ = try session?.thaw()
      if isFinished { session?.hooksFinished() }
      session = nil
      try waitUntil("the guardian ends") { !isAlive(guardian) }
      #expect((readText(log) != nil) == !isFinished)
    }
  }

  private func script(_ text: String) throws -> String {
    let path = systems.folder.file("hook-" + hexadecimal(randomBytes(4)))
    try writeBytes(Array("#!/bin/sh\n\(text)\n".utf8), to: path)
    try Shell.run("chmod", "755", path)
    return path
  }
}

@Suite("strobe thaw", .enabled(if: Needs.systems, Needs.comment))
struct ThawTests {
  private let systems = TestFileSystems()

  private func thaw(_ words: String...) throws -> Shell.Result {
    try Shell.capture([Needs.strobe, "thaw"] + words, environment: ["LC_ALL": "C"])
  }

  @Test(
    "What is no mount point, or nobody left frozen, is refused; --force thaws it, twice if need be")
  func force() throws {
    let system = try systems.fileSystem()
    try Shell.run("fsfreeze", "--freeze", system.mountPoint)
    let refused = try thaw(system.mountPoint)
    #expect(refused.status == 1 && refused.errors.contains("--force"), "\(refused)")
    #expect(try isFrozen(system.mountPoint))
    let thawed = try thaw(system.mountPoint, "--force")
    #expect(thawed.status == 0 && thawed.output == "Thawed \(system.mountPoint).\n", "\(thawed)")
    #expect(try !isFrozen(system.mountPoint))
    let again = try thaw(system.mountPoint, "--force", "--json")
    #expect(again.status == 0 && again.output.contains("notFrozen"), "\(again)")
    #expect(try thaw(systems.folder.path).status == 2)
    #expect(try thaw("--force").status == 2)
  }

  @Test("A pass that runs is not disturbed, unless it is forced: then it knows")
  func alive() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.recordFolder = FreezeRecord.defaultFolder
    let session = try systems.session(on: [system.device], options)
    _ = try session.freeze()
    let refused = try thaw(system.mountPoint)
    #expect(refused.status == 1 && refused.errors.contains("process \(getpid())"), "\(refused)")
    #expect(try thaw(system.mountPoint, "--force").status == 0)
    #expect(try !session.thaw().isHeld)
  }

  @Test("A record of a file system that is gone, or cut short, is cleared away")
  func gone() throws {
    let repair = LeftFrozen(recordFolder: systems.recordFolder)
    #expect(try repair.thawAll().isEmpty)
    try makeDirectories(systems.recordFolder)
    for (name, text) in [
      ("240-9999", "strobe-freeze 1\nboot x\nprocess 1\nmount /nowhere\n"), ("240-9998", "strobe"),
      ("240-9997", ""), ("other", ""),
    ] {
      try writeBytes(Array(text.utf8), to: systems.recordFolder + "/" + name)
    }
    let repairs = try repair.thawAll().map { try $0.get() }
    #expect(repairs.count == 3 && repairs.allSatisfy { $0.outcome == .gone })
    #expect(systems.records == ["other"])
  }
}

extension Result {
  fileprivate var failure: Failure? {
    if case .failure(let error) = self { return error }
    return nil
  }
}
