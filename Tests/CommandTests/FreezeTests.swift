import Glibc
import Platform
import TestSupport
import Testing

@Suite("Points of mounted disks", .enabled(if: Needs.trackers, Needs.trackerComment))
struct FreezeTests {
  @Test(
    "A mounted disk is frozen for the cut and clean after the restore",
    arguments: ["ext4", "xfs", "btrfs"], ["auto", "none"])
  func mounted(kind: String, tracking: String) throws {
    let rig = try Rig(seed: 140)
    let system = try rig.fileSystem(kind)
    try writeBytes(rig.shop.bytes(3_000_000), to: system.mountPoint + "/file")
    let point = try rig.shop.snapshot("--disk", "os=\(system.device)", "--track", tracking)
    #expect(point["consistency"].text == "FileSystemConsistent")
    #expect(point["consistencyReasons"].list.isEmpty)
    #expect(point["frozen"].list.compactMap { $0["mountPoint"].text } == [system.mountPoint])
    #expect(point["frozen"][0]["fileSystem"].text == kind)
    #expect(point["disks"][0]["cut"].text == (tracking == "none" ? "underFreeze" : "preCopy"))
    #expect(try !isFrozen(system.mountPoint))
    try rig.strobe("show", "web@latest").expect(0)
      .prints("Freeze window  ", "\(system.mountPoint) (\(kind)), frozen in ", " ms")
    let shown = try rig.strobe("show", "web@latest", "--json").expect(0).json()
    #expect(try #require(shown["freezeWindowMilliseconds"].number) >= 0)
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q").expect(0)
    let image = rig.file("clean")
    let options = ["ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"]
    // A Btrfs can't be mounted beside its twin; its check reads as much.
    if let options = options[kind] {
      let copy = try rig.mount("-o", options, rig.loop(on: image))
      expectSame(copy + "/file", system.mountPoint + "/file")
      try rig.unmountNow(copy)
    }
    try rig.expectClean(kind, image)
    try rig.strobe("verify").expect(0)
  }

  @Test("A mounted and tracked disk under load: every point is clean, and says how it was found")
  func underLoad() throws {
    let rig = try Rig(seed: 141)
    let system = try rig.fileSystem("ext4", mebibytes: 64)
    try rig.strobe("track", "start", system.device).expect(0)
    let mountPoint = system.mountPoint
    let writer = Busy { round in
      var random = SeededGenerator(seed: UInt64(round))
      try writeBytes(random.bytes(50_000), to: "\(mountPoint)/file-\(round % 40)")
    }
    defer { writer.end() }
    for round in 0..<3 {
      let before = writer.count
      try waitUntil("written") { writer.count > before + 5 }
      let point = try rig.strobe("snapshot", "web", "--disk", "os=\(system.device)", "--json")
        .expect(0).json()
      #expect(point["consistency"].text == "FileSystemConsistent")
      #expect(point["disks"][0]["changeSource"].text == (round == 0 ? "scan" : "tracked"))
      try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q").expect(0)
      try rig.expectClean("ext4", rig.file("clean"))
      try removeFile(rig.file("clean"))
    }
    writer.end()
    try rig.strobe("verify").expect(0)
  }

  @Test("A Btrfs of two devices and an ext4 with a bind mount are frozen once each")
  func several() throws {
    let rig = try Rig(seed: 142)
    let (one, two) = (try rig.device(128).path, try rig.device(128).path)
    let made = try Shell.capture(["mkfs.btrfs", "-q", "-f", "-d", "raid0", one, two])
    try #require(made.status == 0, "\(made.errors)")
    let pool = try rig.mount(one)
    let other = try rig.fileSystem("ext4")
    _ = try rig.mount("--bind", other.mountPoint)
    try writeBytes(rig.shop.bytes(2_000_000), to: pool + "/file")
    let point = try rig.shop.snapshot(
      "--disk", "a=\(one)", "--disk", "b=\(two)", "--disk", "c=\(other.device)")
    #expect(point["consistency"].text == "FileSystemConsistent")
    let kinds = point["frozen"].list.compactMap { $0["fileSystem"].text }
    #expect(kinds.sorted() == ["btrfs", "ext4"])
    #expect(try !isFrozen(pool) && !isFrozen(other.mountPoint))
    try rig.unmountNow(pool)
    // Two copies of one Btrfs can't be told apart: onto its own devices.
    try rig.strobe(
      "restore", "web@latest", "--disk", "a=\(one)", "--disk", "b=\(two)", "--overwrite-source",
      "-q"
    ).expect(0)
    try rig.expectClean("btrfs", one)
  }

  @Test("What lies on a loop device in a file of a mounted disk is frozen before that")
  func nested() throws {
    let rig = try Rig(seed: 143)
    let outer = try rig.fileSystem("xfs")
    let inner = try rig.loop(on: try rig.image(24, in: outer.mountPoint))
    try Rig.make("ext4", on: inner)
    let mount = try rig.mount(inner)
    try writeBytes(rig.shop.bytes(100_000), to: mount + "/file")
    let point = try rig.strobe("snapshot", "web", "--disk", "os=\(outer.device)", "--json")
      .expect(0).json()
    #expect(point["consistency"].text == "FileSystemConsistent")
    #expect(
      point["frozen"].list.compactMap { $0["mountPoint"].text } == [mount, outer.mountPoint])
    #expect(try !isFrozen(mount) && !isFrozen(outer.mountPoint))
  }

  @Test("Two snapshots that freeze the same file system at once both succeed")
  func atOnce() throws {
    let rig = try Rig(seed: 144)
    let system = try rig.fileSystem("ext4")
    for round in 0..<3 {
      let names = ["one", "two", "three"]
      let running = try names.map {
        try rig.strobe.start(
          ["snapshot", $0, "--disk", "os=\(system.device)", "--quiet"],
          output: rig.file("out-\($0)"))
      }
      for (name, process) in zip(names, running) {
        let status = process.wait()
        #expect(status == 0, "\(round): \(readText(rig.file("out-\(name).err")) ?? "")")
        let point = try rig.strobe("show", "\(name)@latest", "--json").json()
        #expect(point["consistency"].text == "FileSystemConsistent")
      }
    }
    #expect(try !isFrozen(system.mountPoint))
    try rig.strobe("verify").expect(0)
  }

  @Test("A snapshot that is killed in the window leaves nothing frozen")
  func killed() throws {
    let rig = try Rig(seed: 145)
    let system = try rig.fileSystem("ext4")
    try writeBytes(rig.shop.bytes(1_000_000), to: system.mountPoint + "/file")
    for round in 0..<8 {
      let process = try rig.strobe.start(["snapshot", "web", "--disk", "os=\(system.device)"])
      // From the beginning to behind the end.
      let limit = 60 * round
      for _ in 0..<limit where !process.hasEnded { usleep(1000) }
      process.signal(9)
      process.wait()
      let writer = try RunningProcess(["touch", system.mountPoint + "/after-\(round)"])
      try waitUntil("thawed by the guardian") { writer.hasEnded }
      writer.wait()
    }
    #expect(try rig.shop.snapshot("--disk", "os=\(system.device)")["frozen"].list.count == 1)
    try rig.strobe("verify").expect(0)
  }

  @Test(
    "Where eBPF can't be had the whole disk is read, still at one instant, and it is said",
    .enabled(if: Machine.has("strace"), "needs strace"))
  func withoutBPF() throws {
    let rig = try Rig(seed: 146)
    let system = try rig.fileSystem("ext4")
    let denied = [
      "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf", "-e", "inject=bpf:error=EPERM",
      Strobe.program,
    ]
    let result = try rig.run(
      denied + ["snapshot", "web", "--disk", "os=\(system.device)", "--json"])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.errors.contains("disks are read whole while they are frozen"))
    let point = try result.json()
    #expect(point["consistency"].text == "FileSystemConsistent")
    #expect(point["disks"][0]["cut"].text == "underFreeze")
    #expect(point["warnings"].list.count == 1)
    let again = try rig.run(denied + ["snapshot", "web", "--json"])
    #expect(again.status == 0, "\(again.errors)")
    #expect(try again.json()["disks"][0]["scanReason"].text != nil)
    let start = try rig.run(denied + ["track", "start", system.device])
    #expect(start.status == 1 && start.errors.hasPrefix("strobe: "), "\(start.errors)")
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q").expect(0)
    try rig.expectClean("ext4", rig.file("clean"))
  }
}
