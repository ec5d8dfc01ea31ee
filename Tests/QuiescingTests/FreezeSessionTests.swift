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
}
