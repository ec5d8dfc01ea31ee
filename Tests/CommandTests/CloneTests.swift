import Glibc
import Platform
import TestSupport
import Testing

/// Writes the numbers 1, 2, 3, … in this order into the slots of some files, around and around.
///
/// In what is left of one instant no number is missing that is older than one that is there: the order is
/// how a torn copy is told from a good one.
private struct OrderedWriter {
  static let slots = 64
  static let step = 64 << 10

  let paths: [String]

  func start() -> Busy {
    let paths = paths
    return Busy { round in
      let slot = round % (Self.slots * paths.count)
      let file = try FileDescriptor(opening: paths[slot % paths.count], O_WRONLY)
      let number = UInt64(round + 1)
      let bytes = (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64($0 * 8)) }
      try unsafe bytes.withBytes { (memory) throws(StrobeError) in
        try unsafe file.write(memory, at: slot / paths.count * Self.step)
      }
    }
  }

  /// What is wrong with the order in copies of the files, or nil.
  static func disorder(_ copies: [String]) throws -> String? {
    var numbers: [Int] = []
    for slot in 0..<slots * copies.count {
      let bytes = try readBytes(
        copies[slot % copies.count], at: slot / copies.count * step, count: 8)
      numbers.append(bytes.reversed().reduce(0) { $0 << 8 | Int($1) })
    }
    let newest = numbers.max() ?? 0
    for (slot, found) in numbers.enumerated() where newest > slot {
      let expected = newest - (newest - 1 - slot) % numbers.count
      if found != expected {
        return "slot \(slot) has \(found), not \(expected); the newest is \(newest)"
      }
    }
    return nil
  }
}

@Suite("Image files", .enabled(if: Needs.systems, Needs.comment))
struct CloneTests {
  private static let mebibytes = 16

  @Test(
    "An image that is written to all the time is cut at one instant", arguments: ["xfs", "btrfs"])
  func single(kind: String) throws {
    let rig = try Rig(seed: 200)
    let system = try rig.fileSystem(kind)
    let image = try rig.image(Self.mebibytes, random: 0, in: system.mountPoint)
    let writer = OrderedWriter(paths: [image]).start()
    defer { writer.end() }
    for round in 0..<4 {
      let before = writer.count
      try waitUntil("written") { writer.count > before + 100 }
      let point = try rig.strobe("snapshot", "web", "--disk", "os=\(image)", "--json").expect(0)
        .json()
      #expect(point["consistency"].text == "CrashConsistent")
      #expect(point["disks"][0]["cut"].text == "clone")
      #expect(point["frozen"].list.isEmpty)
      try rig.strobe(
        "restore", "web@latest", "--disk", "os=\(rig.file("copy"))", "-q", "--overwrite"
      )
      .expect(0)
      let disorder = try OrderedWriter.disorder([rig.file("copy")])
      #expect(disorder == nil, "\(round)")
    }
    writer.end()
    try rig.strobe("verify").expect(0)
  }

  @Test(
    "Two images with one writer are at one instant, or said not to be", arguments: ["xfs", "btrfs"])
  func two(kind: String) throws {
    let rig = try Rig(seed: 201)
    let system = try rig.fileSystem(kind)
    let images = try (0..<2).map { _ in
      try rig.image(Self.mebibytes, random: 0, in: system.mountPoint)
    }
    let writer = OrderedWriter(paths: images).start()
    defer { writer.end() }
    for round in 0..<4 {
      let result = try rig.strobe(
        "snapshot", "web", "--disk", "a=\(images[0])", "--disk", "b=\(images[1])", "--json")
      let level = try result.json()["consistency"].text
      #expect(result.status == (level == "Inconsistent" ? 3 : 0))
      let copies = [rig.file("a"), rig.file("b")]
      try rig.strobe(
        "restore", "web@latest", "--disk", "a=\(copies[0])", "--disk", "b=\(copies[1])", "-q",
        "--overwrite"
      ).expect(0)
      guard level == "CrashConsistent" else { continue }
      let disorder = try OrderedWriter.disorder(copies)
      #expect(disorder == nil, "\(round)")
    }
    writer.end()
    let quiet = try rig.strobe("snapshot", "web", "--json").expect(0).json()
    #expect(quiet["consistency"].text == "CrashConsistent")
  }

  @Test("After a snapshot that was killed no clone is left", arguments: ["xfs", "btrfs"])
  func killed(kind: String) throws {
    let rig = try Rig(seed: 202)
    let system = try rig.fileSystem(kind, mebibytes: 320)
    let image = try rig.image(48, random: 48, in: system.mountPoint)
    func used() throws -> Int {
      try Shell.run("sync", "--file-system", system.mountPoint)
      let text = try Shell.run("df", "--output=used", "-B1", system.mountPoint)
      return Int(text.split(separator: "\n")[1].filter(\.isNumber)) ?? 0
    }
    let before = try used()
    for _ in 0..<3 {
      let process = try rig.shop.startAndStop(
        ["snapshot", "web", "--disk", "os=\(image)", "--workers", "1"])
      // While it is shared every write takes new space.
      try rig.shop.write(rig.shop.bytes(8 << 20), to: image)
      process.signal(SIGKILL)
      process.wait()
    }
    #expect(try Shell.run("ls", "-A", system.mountPoint).split(separator: "\n").count == 1)
    // A Btrfs keeps the old extent while a part of it is in use: once, not for every pass.
    for _ in 0..<600 where try used() > before + 12 << 20 { usleep(100_000) }
    #expect(try used() <= before + 12 << 20)
    #expect(try rig.shop.snapshot()["disks"][0]["cut"].text == "clone")
    try rig.shop.expectWhole()
  }

  @Test(
    "Where blocks can't be shared the file's times are the proof", arguments: ["ext4", "tmpfs"])
  func noClone(kind: String) throws {
    let rig = try Rig(seed: 203)
    let folder = kind == "ext4" ? try rig.fileSystem("ext4", mebibytes: 160).mountPoint : nil
    let image = try rig.image(48, random: 48, in: folder)
    let point = try rig.shop.snapshot("--disk", "os=\(image)")
    #expect(point["disks"][0]["cut"].text == "live")
    #expect(point["consistency"].text == "CrashConsistent")
    let process = try rig.shop.startAndStop(["snapshot", "web", "--full", "--workers", "1"])
    try rig.shop.write(rig.shop.bytes(4096), to: image, at: 1 << 20)
    process.signal(SIGCONT)
    #expect(process.wait() == 3)
    try rig.strobe("show", "web@latest").expect(0)
      .prints("Inconsistent", "\(image) was written to while it was read")
    try rig.shop.expectWhole()
  }

  @Test(
    "An image on a file system that is frozen with it is cut all the same",
    arguments: [true, false])
  func onFrozen(byName: Bool) throws {
    let rig = try Rig(seed: 205)
    let system = try rig.fileSystem("xfs")
    let image = try rig.image(Self.mebibytes, random: 4, in: system.mountPoint)
    let more =
      byName ? ["--freeze", system.mountPoint] : ["--disk", "disk=\(system.device)"]
    let words = ["snapshot", "web", "--disk", "os=\(image)", "--max-freeze", "2s", "--json"]
    let result = try rig.strobe.run(words + more)
    try #require(result.status == 0, "\(result.errors)")
    #expect(try result.json()["frozen"].list.count == 1)
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("copy"))", "-q").expect(0)
    expectSame(rig.file("copy"), image)
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test(
    "What is mounted from an image is frozen, the file system below it is not",
    arguments: ["xfs", "ext4"])
  func mountedImage(below: String) throws {
    let rig = try Rig(seed: 204)
    let system = try rig.fileSystem(below, mebibytes: 320)
    let image = try rig.image(24, in: system.mountPoint)
    let inner = try rig.loop(on: image)
    try Rig.make("ext4", on: inner)
    let mount = try rig.mount(inner)
    for _ in 0..<3 {
      try writeBytes(rig.shop.bytes(500_000), to: mount + "/file")
      let result = try rig.strobe("snapshot", "web", "--disk", "os=\(image)", "--json").expect(0)
      let point = try result.json()
      #expect(point["consistency"].text == "FileSystemConsistent", "\(result.errors)")
      #expect(point["frozen"].list.compactMap { $0["mountPoint"].text } == [mount])
      #expect(point["disks"][0]["cut"].text == (below == "xfs" ? "clone" : "underFreeze"))
      try rig.strobe(
        "restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q", "--overwrite"
      )
      .expect(0)
      try rig.expectClean("ext4", rig.file("clean"))
    }
    #expect(try !isFrozen(mount) && !isFrozen(system.mountPoint))
  }
}
