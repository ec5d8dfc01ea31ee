import BlockDevices
import Glibc
import Platform
import Quiescing
import TestSupport
import Testing

/// A file system on a file of another one that somebody else froze: its FIFREEZE and FITHAW have to write,
/// and hang in the kernel until the other one is thawed.
@Suite("Calls that hang in the kernel", .enabled(if: Needs.systems, Needs.comment))
struct HangingCallTests {
  private let systems = TestFileSystems()
  private let outer: String
  private let inner: String
  private let device: String

  init() throws {
    let system = try systems.fileSystem("ext4", mebibytes: 200)
    outer = system.mountPoint
    (inner, device, _) = try systems.fileSystem("ext4", mebibytes: 64, in: outer)
  }

  private func freezeOuter() throws { try Shell.run("fsfreeze", "--freeze", outer) }
  private func thawOuter() throws { try Shell.run("fsfreeze", "--unfreeze", outer) }

  /// Whether one of a process's threads waits in the kernel.
  private func hangs(_ process: Int32) throws -> Bool {
    for thread in try namesInDirectory("/proc/\(process)/task") {
      let text = readText("/proc/\(process)/task/\(thread)/stat") ?? ""
      if let end = text.lastIndex(of: ")"), text[end...].dropFirst(2).first == "D" { return true }
    }
    return false
  }

  @Test("A freeze that hangs doesn't keep the deadline; when it returns it is thawed at once")
  func freezeHangs() throws {
    try freezeOuter()
    var options = systems.options
    options.maxFreezeMilliseconds = 300
    let session = try systems.session(on: [device], options)
    let error = try #require(throws: StrobeError.self) { try session.freeze() }
    #expect(error.message.contains("300 ms"), "\(error)")
    #expect(try hangs(session.guardianProcess) && session.isLost)
    try thawOuter()
    #expect(try !session.thaw().isHeld)
    #expect(try !isFrozen(inner) && systems.records.isEmpty)
  }

  @Test("A guardian that is killed while its freeze hangs leaves the thaw to the engine")
  func guardianKilled() throws {
    try freezeOuter()
    let session = try systems.session(on: [device])
    let shared = session
    let join = try #require(inBackground { _ = try? shared.freeze() })
    try waitUntil("hangs") { try hangs(session.guardianProcess) }
    kill(session.guardianProcess, SIGKILL)
    usleep(50_000)
    // Its thread is still in the kernel, so the socket must still be open.
    #expect(try hangs(session.guardianProcess) && !session.isLost)
    try thawOuter()
    join()
    #expect(session.isLost)
    try waitUntil("thawed") { try !isFrozen(inner) }
    #expect(try !session.thaw().isHeld && systems.records.isEmpty)
  }

  @Test("An engine that is killed while the freeze hangs: the guardian thaws when it returns")
  func engineKilled() throws {
    try freezeOuter()
    let output = systems.folder.file("driver")
    let driver = try RunningProcess(
      [
        parentDirectory(Needs.strobe) + "/freeze-driver", Needs.strobe, systems.recordFolder,
        "60000", "-", "unsynchronized", device,
      ], output: output)
    try waitUntil("ready") { readText(output + ".out")?.hasPrefix("ready ") == true }
    let guardian = try #require(Int32(readText(output + ".out")?.dropFirst(6) ?? ""))
    try waitUntil("hangs") { try hangs(guardian) }
    driver.signal(SIGKILL)
    driver.wait()
    usleep(50_000)
    #expect(isAlive(guardian) && systems.records.count == 1)
    try thawOuter()
    try waitUntil("the guardian ends") { !isAlive(guardian) }
    #expect(try !isFrozen(inner) && systems.records.isEmpty)
  }

  @Test("A thaw that hangs keeps no other file system frozen", arguments: [true, false])
  func thawHangs(hasGuardian: Bool) throws {
    let other = try systems.fileSystem("ext4", mebibytes: 64)
    // The last one is thawed first.
    let list = try found(on: [other.device]) + found(on: [device])
    let session = try FreezeSession(list, systems.options)
    #expect(try session.freeze().allSatisfy { $0.outcome.isFrozen })
    try freezeOuter()
    let writer = try startWriter(other.mountPoint)
    let shared = session
    if !hasGuardian { kill(session.guardianProcess, SIGKILL) }
    let join = try #require(inBackground { shared.abandon() })
    #expect(writer.wait() == 0)
    #expect(systems.records.count == 2)
    try thawOuter()
    join()
    #expect(try session.thaw().isHeld == hasGuardian)
    #expect(try !isFrozen(inner) && systems.records.isEmpty)
  }
}
