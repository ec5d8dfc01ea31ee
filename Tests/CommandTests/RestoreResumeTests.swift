import CLinux
import Glibc
import Platform
import TestSupport
import Testing

@Suite("A restore after one that was cut off")
struct RestoreResumeCommandTests {
  private static let size = 48 << 20

  /// A point of a disk of random bytes.
  private func shop(seed: UInt64) throws -> Workshop {
    let shop = try Workshop(seed: seed)
    try shop.snapshot("--disk", "os=\(shop.image("disk.raw", Self.size))")
    return shop
  }

  private func goOn(
    _ shop: Workshop, _ target: String, _ words: String..., point: String = "web@latest",
    at location: SourceLocation = #_sourceLocation
  ) throws -> (kept: Int, written: Int) {
    let result = try shop.strobe.run(
      ["restore", point, "--disk", "os=\(target)", "--resume", "--json"] + words)
    let disk = try result.expect(0, at: location).json(at: location)["disks"][0]
    return (disk["keptBytes"].number ?? -1, disk["writtenBytes"].number ?? -1)
  }

  private func allocated(_ path: String) throws -> Int {
    try Int(FileFacts(path: path)?.blocks512 ?? 0) * 512
  }

  @Test(
    "Killed at random moments, a file is completed, and nothing is written twice",
    arguments: 300..<304)
  func killed(seed: Int) throws {
    let shop = try shop(seed: UInt64(seed))
    let target = shop.file("target.raw")
    let partial = shop.file(".target.raw.strobe-partial")
    var random = SeededGenerator(seed: UInt64(seed))
    for round in 0..<3 {
      let before = try allocated(partial)
      let limit = before + Int.random(in: 1...(Self.size / 5), using: &random)
      let process = try shop.strobe.start(
        ["restore", "web@latest", "--disk", "os=\(target)"] + (round > 0 ? ["--resume"] : []))
      while !process.hasEnded, try allocated(partial) < limit { usleep(200) }
      process.signal(SIGKILL)
      process.wait()
      if try FileFacts(path: target) != nil { return }
      #expect(try allocated(partial) >= before)
    }
    let there = try allocated(partial)
    let (kept, written) = try goOn(shop, target)
    #expect(kept + written == Self.size)
    // What a write had not filled when it was cut off.
    #expect(kept <= there && kept >= there - 2 * processorCount() * (4 << 20))
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test("What was altered meanwhile is written again, and nothing else")
  func altered() throws {
    let shop = try shop(seed: 310)
    let target = shop.file("target.raw")
    let partial = shop.file(".target.raw.strobe-partial")
    try Shell.run("cp", shop.kept[0].copy, partial)
    for chunk in [0, 77, 767] {
      let byte = try readBytes(partial, at: chunk * 65536 + 5, count: 1)
      try writeBytes([byte[0] ^ 1], to: partial, at: chunk * 65536 + 5)
    }
    try Shell.run("truncate", "-s", "+1M", partial)
    let (kept, written) = try goOn(shop, target)
    #expect(written == 3 * 65536 && kept == Self.size - written)
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test("Without --resume what was left is replaced; a stranger's file is never written to")
  func leftovers() throws {
    let shop = try shop(seed: 311)
    let target = shop.file("target.raw")
    let partial = shop.file(".target.raw.strobe-partial")
    try Shell.run("cp", shop.kept[0].copy, partial)
    let result = try shop.strobe("restore", "web@latest", "--disk", "os=\(target)", "--json")
    #expect(try result.expect(0).json()["disks"][0]["writtenBytes"].number == Self.size)
    try removeFile(target)
    try shop.write([7], to: shop.image("victim", 4096))
    try Shell.run("cp", shop.file("victim"), shop.file("copy"))
    for make in ["ln -s victim", "ln victim", "chown 65534 $(cp victim x; echo x); mv x", "mkfifo"]
    {
      try Shell.run("sh", "-c", "cd \(shop.folder.path) && \(make) .target.raw.strobe-partial")
      try shop.strobe("restore", "web@latest", "--disk", "os=\(target)", "--resume")
        .expect(1, says: partial, "remove it")
      #expect(try FileFacts(path: target) == nil)
      try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(0)
      expectSame(target, shop.kept[0].copy)
      expectSame(shop.file("victim"), shop.file("copy"))
      try removeFile(target)
    }
    try shop.expectWhole()
  }

  @Test("Two restores at once into one file are refused, resumed or not")
  func twoAtOnce() throws {
    let shop = try shop(seed: 312)
    let target = shop.file("target.raw")
    let first = try shop.startAndStop(
      ["restore", "web@latest", "--workers", "1", "--disk", "os=\(target)"])
    for words in [[], ["--resume"]] {
      try shop.strobe.run(["restore", "web@latest", "--disk", "os=\(target)"] + words)
        .expect(1, says: "another restore writes to target \(target)", "wait for it")
    }
    first.signal(SIGCONT)
    #expect(first.wait() == 0)
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test(
    "A device is gone on with, whatever it held: any sector size, a larger one, another point",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"), arguments: [512, 4096])
  func devices(sectorSize: Int) throws {
    let shop = try Workshop(seed: 313)
    let disk = try shop.image("disk.raw", 24 << 20, random: 12 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    try Shell.run("fallocate", "--punch-hole", "--offset", "1M", "--length", "3M", disk)
    try shop.write(shop.bytes(5 << 20), to: disk, at: 14 << 20)
    try shop.snapshot()
    let device = try LoopDevice(size: 25 << 20, sectorSize: sectorSize, in: shop.folder)
    // Something where zeros belong, and beyond the end of the disk.
    for offset in [20 << 20, (24 << 20) - 700, (24 << 20) + 5] {
      try shop.write(shop.bytes(300), to: device.path, at: offset)
    }
    let tail = try readBytes(device.path, at: 24 << 20, count: 1 << 20)
    for _ in 0..<3 {
      let process = try shop.strobe.start([
        "restore", "web@-1", "--disk", "os=\(device.path)", "--resume",
      ])
      usleep(UInt32.random(in: 0..<60_000))
      process.signal(SIGKILL)
      process.wait()
    }
    let first = try goOn(shop, device.path, point: "web@-1")
    #expect(first.kept >= 11 << 20 && first.kept + first.written <= 24 << 20)
    expectSame(device.path, shop.kept[0].copy)
    let again = try goOn(shop, device.path, point: "web@-1")
    #expect(again.kept == 24 << 20 && again.written == 0)
    let other = try goOn(shop, device.path)
    #expect(other.written == 5 << 20 && other.kept == (24 - 5 - 3) << 20)
    expectSame(device.path, shop.kept[1].copy)
    #expect(try readBytes(device.path, at: 24 << 20, count: 1 << 20) == tail)
    try shop.expectWhole()
    withExtendedLifetime(device) {}
  }

  @Test(
    "Several disks of which one could not be restored are gone on with by the same command",
    .enabled(if: Machine.isRoot, "needs root"))
  func several() throws {
    let shop = try Workshop(seed: 314)
    try shop.snapshot(
      "--disk", "a=\(shop.image("a.raw", 12 << 20))", "--disk", "b=\(shop.image("b.raw", 12 << 20))"
    )
    let small = try MemoryMount(size: "18M")
    let words = ["restore", "web@latest", "--to", small.path]
    let failed = try shop.strobe.run(words)
    failed.expect(
      1, says: "No space left on device", "\(small.path)/.a.raw.strobe-partial",
      "\(small.path)/.b.raw.strobe-partial: go on with --resume, or remove it")
    #expect(try FileFacts(path: small.path + "/a.raw") == nil)
    try small.remount("size=64M")
    let report = try shop.strobe.run(words + ["--resume", "--json"]).expect(0).json()
    #expect(report["disks"][0]["writtenBytes"].number == 0)
    #expect(report["disks"][0]["keptBytes"].number == 12 << 20)
    #expect(report["disks"][1]["keptBytes"].number! > 0)
    for kept in shop.kept { expectSame("\(small.path)/\(kept.disk).raw", kept.copy) }
    #expect(try Set(namesInDirectory(small.path)) == ["a.raw", "b.raw"])
    try shop.expectWhole()
  }

  @Test("A restore that is gone on with says what was there; a name may be as long as names can be")
  func says() throws {
    let shop = try shop(seed: 315)
    let target = shop.file(String(repeating: "n", count: 255))
    let words = ["restore", "web@latest", "--disk", "os=\(target)"]
    let process = try shop.strobe.start(words)
    usleep(50_000)
    process.signal(SIGKILL)
    process.wait()
    try removeFile(target)
    try shop.strobe.run(words + ["--resume"]).expect(0)
    expectSame(target, shop.kept[0].copy)
    let device = shop.file("other.raw")
    try Shell.run("cp", shop.kept[0].copy, shop.file(".other.raw.strobe-partial"))
    try shop.strobe("restore", "web@latest", "--disk", "os=\(device)", "--resume").expect(0)
      .prints("0 B written, 48 MiB were there already")
    try shop.expectWhole()
  }
}
