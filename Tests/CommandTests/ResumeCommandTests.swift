import CLinux
import Glibc
import Platform
import TestSupport
import Testing

@Suite("A snapshot after one that was cut off")
struct ResumeCommandTests {
  private static let mebibytes = 48
  /// Records of a whole pass over random bytes, which don't shrink.
  private static let whole = (mebibytes << 20) + mebibytes * 16 * 48

  /// Records that a worker has on their way at once: what a kill may cost it. One stripe of 4 MiB.
  private static let flush = 64 * (65536 + 48)

  /// Bytes of all segments.
  private func segmentBytes(_ shop: Workshop) throws -> Int {
    var sum = 0
    for path in try shop.objects() where path.contains("/segments/") {
      sum += Int(try FileFacts(path: path)?.size ?? 0) - 64
    }
    return sum
  }

  private func stored(_ point: JSON) -> Int { point["disks"][0]["storedBytes"].number ?? -1 }

  /// Runs the snapshot that goes on, and checks that with what was there it makes one whole pass.
  ///
  /// - Parameter lost: bytes that may have been on their way when it was cut off, and are stored again.
  private func expectResumed(
    _ shop: Workshop, lost: Int = 0, at location: SourceLocation = #_sourceLocation
  ) throws {
    let before = try segmentBytes(shop)
    #expect(before > 0, sourceLocation: location)
    let point = try shop.snapshot("--disk", "os=\(shop.file("disk.raw"))", at: location)
    let adopted = try #require(point["adoptedBytes"].number)
    #expect(adopted <= before && adopted >= before - lost, sourceLocation: location)
    #expect(adopted + stored(point) == Self.whole, sourceLocation: location)
    #expect(try shop.journals() == [], sourceLocation: location)
    try shop.expectWhole(at: location)
    try shop.strobe("gc").expect(0, at: location)
    try shop.expectWhole(at: location)
  }

  @Test("Killed at random moments, again and again: nothing is stored twice", arguments: 80..<84)
  func killed(seed: Int) throws {
    let shop = try Workshop(seed: UInt64(seed))
    let disk = try shop.image("disk.raw", Self.mebibytes << 20)
    var random = SeededGenerator(seed: UInt64(seed))
    let (kills, workers) = (3, 1 + seed % 2)
    for _ in 0..<kills {
      let process = try shop.strobe.start([
        "snapshot", "web", "--disk", "os=\(disk)", "--workers", "\(workers)",
      ])
      let limit = try segmentBytes(shop) + Int.random(in: 1...(Self.whole / 6), using: &random)
      while !process.hasEnded, try segmentBytes(shop) < limit { usleep(200) }
      process.signal(SIGKILL)
      process.wait()
      // Too late: this seed was quicker than we are today.
      if try !shop.strobe("list", "--json").json()["collections"][0]["points"].list.isEmpty {
        return
      }
    }
    #expect(try segmentBytes(shop) <= Self.whole + kills * workers * Self.flush)
    try expectResumed(shop, lost: kills * workers * Self.flush)
  }

  @Test("The next snapshot says how much it did not store again")
  func says() throws {
    let shop = try Workshop(seed: 85)
    let disk = try shop.image("disk.raw", Self.mebibytes << 20)
    let words = ["snapshot", "web", "--disk", "os=\(disk)", "--workers", "1"]
    let process = try shop.startAndStop(words)
    try waitUntil("stored something") {
      if try segmentBytes(shop) > Self.flush { return true }
      process.signal(SIGCONT)
      usleep(1000)
      process.signal(SIGSTOP)
      return process.hasEnded
    }
    process.signal(SIGKILL)
    process.wait()
    try shop.strobe("gc").expect(0).prints("of interrupted snapshots are kept for the next one")
    try shop.strobe("snapshot", "web", "--disk", "os=\(disk)").expect(0)
      .prints("resumed: ", "of an interrupted snapshot were not stored again")
    try shop.expectWhole()
  }

  @Test(
    "After a full repository got more space, only the rest is stored",
    .enabled(if: Machine.isRoot, "needs root"))
  func full() throws {
    let mount = try MemoryMount(size: "30M")
    let shop = try Workshop(seed: 86, repository: mount.path + "/repository")
    let disk = try shop.image("disk.raw", Self.mebibytes << 20)
    for _ in 0..<2 {
      let result = try shop.strobe("snapshot", "web", "--disk", "os=\(disk)")
      result.expect(
        1, says: "No space left on device", "what was stored is kept for the next run",
        "strobe gc --drop-unfinished frees it")
    }
    #expect(try mount.used() > 20 << 20)
    try mount.remount("size=200M")
    // What didn't fit is the last buffer of each worker.
    try expectResumed(shop, lost: 2 * processorCount() * Self.flush)
  }

  @Test(
    "gc --drop-unfinished makes room in a full repository",
    .enabled(if: Machine.isRoot, "needs root"))
  func dropped() throws {
    let mount = try MemoryMount(size: "30M")
    let shop = try Workshop(seed: 87, repository: mount.path + "/repository")
    let disk = try shop.image("disk.raw", Self.mebibytes << 20)
    try shop.strobe("snapshot", "web", "--disk", "os=\(disk)").expect(1)
    try shop.strobe("gc", "--drop-unfinished").expect(0).prints("1 segment.")
    #expect(try mount.used() < 1 << 20)
    #expect(try shop.journals() == [])
  }

  @Test(
    "After a read error, what was read before it is not stored again",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func readError() throws {
    let shop = try Workshop(seed: 88)
    let image = try shop.image("disk.raw", Self.mebibytes << 20)
    try Shell.run("cp", image, shop.file("whole"))
    let device = try LoopDevice(size: Self.mebibytes << 20, in: shop.folder)
    try Shell.run("dd", "if=\(image)", "of=\(device.path)", "bs=1M", "status=none", "conv=fsync")
    // A loop device that is longer than its file can't be read there.
    try Shell.run("truncate", "-s", "24M", device.backing)
    let words = ["snapshot", "web", "--disk", "os=\(device.path)"]
    try shop.strobe.run(words + ["--freeze", "none"]).expect(
      1, says: "Input/output error", "kept for the next run")
    let first = try segmentBytes(shop)
    #expect(first > 0)
    try Shell.run("cp", shop.file("whole"), device.backing)
    let point = try shop.snapshot("--disk", "os=\(device.path)")
    #expect(point["adoptedBytes"].number == first)
    #expect(stored(point) + first == Self.whole)
    try shop.expectWhole()
  }

  @Test("After a hook failed before the cut, nothing is stored again")
  func hookFailed() throws {
    let shop = try Workshop(seed: 89)
    let disk = try shop.image("disk.raw", Self.mebibytes << 20)
    try shop.strobe("snapshot", "web", "--disk", "os=\(disk)", "--pre-freeze", "/usr/bin/false")
      .expect(1, says: "/usr/bin/false", "kept for the next run")
    #expect(try segmentBytes(shop) == Self.whole)
    try expectResumed(shop)
    #expect(try segmentBytes(shop) == Self.whole)
  }

  @Test(
    "A tracked snapshot goes on with what an interrupted one stored",
    .enabled(if: Needs.trackers, Needs.trackerComment))
  func tracked() throws {
    for signal in [SIGINT, SIGKILL] {
      let rig = try Rig(seed: 90)
      let (device, _) = try rig.device(Self.mebibytes, random: 1)
      try rig.strobe("track", "start", device).expect(0)
      try rig.shop.snapshot("--disk", "os=\(device)")
      let before = try segmentBytes(rig.shop)
      try rig.shop.write(rig.shop.bytes(Self.mebibytes << 20), to: device)
      let process = try rig.strobe.start(["snapshot", "web", "--workers", "1"])
      while !process.hasEnded, try segmentBytes(rig.shop) < before + 8 << 20 { usleep(200) }
      process.signal(signal)
      if process.wait() == 0 { continue }
      let first = try segmentBytes(rig.shop) - before
      let point = try rig.shop.snapshot()
      let adopted = try #require(point["adoptedBytes"].number)
      #expect(adopted > 0 && adopted <= first)
      #expect(adopted + stored(point) == Self.whole)
      // Who was only interrupted gave its marks back.
      #expect(point["disks"][0]["changeSource"].text == (signal == SIGINT ? "tracked" : "scan"))
      try rig.shop.expectWhole()
    }
  }
}
