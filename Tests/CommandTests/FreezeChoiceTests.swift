import Glibc
import Platform
import TestSupport
import Testing

@Suite("What to freeze and for how long", .enabled(if: Needs.trackers, Needs.trackerComment))
struct FreezeChoiceTests {
  private func points(_ rig: Rig) throws -> Int {
    try rig.strobe("list", "--json").json()["collections"][0]["points"].list.count
  }

  @Test("Nothing is frozen with --freeze none; what nobody wrote to is CrashConsistent")
  func none() throws {
    let rig = try Rig(seed: 160)
    let system = try rig.fileSystem("ext4")
    try Shell.run("sync", "--file-system", system.mountPoint)
    let point = try rig.shop.snapshot("--disk", "os=\(system.device)", "--freeze", "none")
    #expect(point["consistency"].text == "CrashConsistent")
    #expect(point["frozen"].list.isEmpty && point["freezeWindowMilliseconds"].number == nil)
    #expect(point["consistencyReasons"][0].text?.contains("was not frozen") == true)
    try rig.strobe("show", "web@latest").expect(0).prints("nothing was frozen")
    try rig.shop.expectWhole()
  }

  @Test("Mount points that make no sense are wrong usage, and nothing is committed")
  func badPlaces() throws {
    let rig = try Rig(seed: 161)
    let system = try rig.fileSystem("ext4")
    let disk = ["snapshot", "web", "--disk", "os=\(system.device)", "--freeze"]
    try rig.strobe.run(disk + [rig.shop.folder.path]).expect(2, says: "is not a mount point")
    try rig.strobe.run(disk + ["/nonexistent"]).expect(2, says: "is not a mount point")
    try rig.strobe.run(disk + ["/dev/shm"]).expect(2, says: "there is nothing to freeze")
    try rig.strobe.run(disk + ["relative"]).expect(
      2, says: "neither auto, none, guest nor a mount point")
    try rig.strobe.run(disk + [system.mountPoint, "--freeze", "none"])
      .expect(2, says: "can't be given together")
    try rig.strobe.run(disk + ["auto", "--freeze", "auto"]).expect(2)
    try Shell.run("mount", "-o", "remount,ro", system.mountPoint)
    try rig.strobe.run(disk + [system.mountPoint]).expect(2, says: "read-only")
    #expect(try points(rig) == 0)
  }

  @Test("A mount point may be named twice, through a link, or lie on another disk")
  func oddPlaces() throws {
    let rig = try Rig(seed: 162)
    let system = try rig.fileSystem("ext4")
    let other = try rig.fileSystem("ext4")
    try Shell.run("ln", "-s", system.mountPoint, rig.file("link"))
    let point = try rig.shop.snapshot(
      "--disk", "os=\(system.device)", "--freeze", system.mountPoint, "--freeze", rig.file("link"))
    #expect(point["consistency"].text == "FileSystemConsistent")
    #expect(point["frozen"].list.count == 1)
    let elsewhere = try rig.shop.snapshot("--freeze", other.mountPoint, status: 3)
    #expect(elsewhere["consistency"].text == "CrashConsistent")
    #expect(elsewhere["frozen"][0]["mountPoint"].text == other.mountPoint)
    #expect(try !isFrozen(system.mountPoint) && !isFrozen(other.mountPoint))
    try rig.strobe("verify").expect(0)
  }

  @Test("What somebody else froze stays frozen: auto lowers the level, by name it is refused")
  func frozenAlready() throws {
    let rig = try Rig(seed: 163)
    let system = try rig.fileSystem("xfs")
    try Shell.run("fsfreeze", "--freeze", system.mountPoint)
    defer { thaw(system.mountPoint) }
    let result = try rig.strobe("snapshot", "web", "--disk", "os=\(system.device)", "--json")
    result.expect(3, says: "the point is CrashConsistent", "it is frozen already")
    #expect(try result.json()["frozen"].list.isEmpty)
    #expect(try isFrozen(system.mountPoint))
    try rig.strobe("snapshot", "web", "--freeze", system.mountPoint)
      .expect(1, says: system.mountPoint, "it is frozen already", "nothing was committed")
    #expect(try isFrozen(system.mountPoint))
    #expect(try points(rig) == 1)
    try rig.strobe("thaw").expect(0).prints("Nothing was left frozen.")
    #expect(try isFrozen(system.mountPoint))
    try rig.strobe("thaw", system.mountPoint).expect(
      1, says: "no snapshot left it frozen", "--force")
    try rig.strobe("thaw", system.mountPoint, "--force").expect(0)
      .prints("Thawed \(system.mountPoint).")
    try rig.strobe("thaw", system.mountPoint, "--force").expect(0).prints("was not frozen")
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test(
    "A file system that can't be frozen lowers the level, by name it is refused",
    .enabled(if: FuseServer.isAvailable, "needs FUSE and python3"))
  func unsupported() throws {
    let rig = try Rig(seed: 164)
    let device = try rig.device(16, random: 16)
    let server = try FuseServer(on: device.path, in: rig)
    let result = try rig.strobe("snapshot", "web", "--disk", "os=\(device.path)", "--json")
    result.expect(3, says: "can't be frozen")
    #expect(try result.json()["consistency"].text == "CrashConsistent")
    try rig.strobe("snapshot", "web", "--freeze", server.mountPoint)
      .expect(1, says: server.mountPoint, "can't be frozen", "nothing was committed")
    #expect(try points(rig) == 1)
  }

  @Test("A file system that is mounted over can't be reached, and lowers the level")
  func mountedOver() throws {
    let rig = try Rig(seed: 167)
    let system = try rig.fileSystem("ext4")
    try Shell.run("mount", "-t", "tmpfs", "none", system.mountPoint)
    defer { _ = try? Shell.run("umount", system.mountPoint) }
    let result = try rig.strobe("snapshot", "web", "--disk", "os=\(system.device)", "--json")
    result.expect(3, says: "the point is CrashConsistent", "mounted over")
    #expect(try result.json()["frozen"].list.isEmpty)
  }

  @Test("What is mounted in another mount namespace only is noticed")
  func otherNamespace() throws {
    let rig = try Rig(seed: 168)
    let device = try rig.device(24).path
    try Rig.make("ext4", on: device)
    try makeDirectories(rig.file("inside"))
    let script =
      "mount \(device) \(rig.file("inside")) && touch \(rig.file("ready")) && exec sleep 600"
    let inside = try RunningProcess([
      "unshare", "--mount", "--propagation", "private", "sh", "-c", script,
    ])
    defer {
      inside.signal(SIGKILL)
      inside.wait()
    }
    try waitUntil("mounted") { try inside.hasEnded || FileFacts(path: rig.file("ready")) != nil }
    let point = try rig.strobe("snapshot", "web", "--disk", "os=\(device)", "--json")
      .expect(3, says: "CrashConsistent", "holds it exclusively").json()
    #expect(point["consistency"].text == "CrashConsistent")
    #expect(point["consistencyReasons"][0].text?.contains("holds it exclusively") == true)
    #expect(point["disks"][0]["cut"].text == "preCopy")
  }

  @Test("A freeze that somebody else ends is no freeze: the point is given up or right")
  func thawedByOthers() throws {
    let rig = try Rig(seed: 169)
    let system = try rig.fileSystem("ext4")
    let mountPoint = system.mountPoint
    let stranger = Busy { _ in thaw(mountPoint) }
    defer { stranger.end() }
    var lost = 0
    for _ in 0..<5 {
      let result = try rig.strobe("snapshot", "web", "--disk", "os=\(system.device)")
      guard result.status != 0 else { continue }
      lost += 1
      result.expect(1, says: "somebody else thawed \(mountPoint)", "nothing was committed")
    }
    stranger.end()
    #expect(lost > 0)
    #expect(try points(rig) == 5 - lost)
    #expect(try !isFrozen(mountPoint))
    try rig.strobe("thaw").expect(0)
  }

  @Test("An untracked disk that would be frozen for too long is refused beforehand")
  func estimate() throws {
    let rig = try Rig(seed: 165)
    let system = try rig.fileSystem("ext4", mebibytes: 160)
    try writeBytes(rig.shop.bytes(120 << 20), to: system.mountPoint + "/file")
    try rig.strobe(
      "snapshot", "web", "--disk", "os=\(system.device)", "--track", "none", "--max-freeze", "1ms"
    ).expect(
      1, says: "os would stay frozen for about", "longer than the 1 ms allowed", "--max-freeze")
    #expect(try points(rig) == 0)
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test("A deadline that strikes in the window commits nothing, and says so")
  func deadline() throws {
    let rig = try Rig(seed: 166)
    let system = try rig.fileSystem("ext4", mebibytes: 160)
    try rig.strobe("track", "start", system.device).expect(0)
    try rig.shop.snapshot("--disk", "os=\(system.device)")
    let mountPoint = system.mountPoint
    let writer = Busy { round in
      try writeBytes([UInt8](repeating: UInt8(round & 255), count: 65536), to: mountPoint + "/busy")
    }
    defer { writer.end() }
    for _ in 0..<3 {
      let result = try rig.strobe("snapshot", "web", "--max-freeze", "1ms")
      guard result.status == 1 else { continue }
      result.expect(1, says: "1 ms", "thawed", "nothing was committed", "--max-freeze")
    }
    writer.end()
    #expect(try !isFrozen(system.mountPoint))
    // The marks are as they were.
    let point = try rig.shop.snapshot()
    #expect(point["disks"][0]["changeSource"].text == "tracked")
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q").expect(0)
    try rig.expectClean("ext4", rig.file("clean"))
    try rig.strobe("verify").expect(0)
  }

  @Test("Limits that make no sense are wrong usage", arguments: ["0", "0ms", "2h", "x", "-1s"])
  func badLimit(limit: String) throws {
    let shop = try Workshop()
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.strobe("snapshot", "web", "--disk", "os=\(disk)", "--max-freeze=\(limit)")
      .expect(2, says: "max-freeze")
  }
}
