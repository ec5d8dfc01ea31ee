import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Trackers when a pass fails or they are lied to",
  .enabled(if: Needs.trackers, Needs.trackerComment))
struct TrackerFailureTests {
  private static let size = 48 << 20

  /// A tracked device with a point, and every chunk changed since.
  private func changed(seed: UInt64, repository: String? = nil) throws -> (Rig, String, String) {
    let rig = try Rig(seed: seed, repository: repository)
    let (device, backing) = try rig.device(Self.size >> 20, random: 24)
    try rig.strobe("track", "start", device).expect(0)
    try rig.shop.snapshot("--disk", "os=\(device)")
    try refill(device)
    return (rig, device, backing)
  }

  private func refill(_ device: String) throws {
    try Shell.run(
      "dd", "if=/dev/urandom", "of=\(device)", "bs=1M", "count=\(Self.size >> 20)", "oflag=direct",
      "conv=notrunc", "status=none")
  }

  private func expectTracked(
    _ rig: Rig, at location: SourceLocation = #_sourceLocation
  ) throws {
    let disk = try rig.shop.snapshot(at: location)["disks"][0]
    #expect(
      disk["changeSource"].text == "tracked", "\(disk["scanReason"].text ?? "")",
      sourceLocation: location)
    try rig.shop.expectWhole(at: location)
  }

  @Test("A full repository gives the marks back")
  func fullRepository() throws {
    let memory = try MemoryMount(size: "60M")
    let (rig, device, _) = try changed(seed: 120, repository: memory.path + "/repository")
    let point = try rig.tracker(of: device)["point"].text
    try rig.strobe("snapshot", "web").expect(1, says: "No space left on device")
    #expect(try rig.tracker(of: device)["point"].text == point)
    #expect(try rig.tracker(of: device)["writtenBytes"].number == Self.size)
    try memory.remount("size=200M")
    try expectTracked(rig)
    withExtendedLifetime(memory) {}
  }

  @Test("A pass that is ended by a signal gives the marks back", arguments: [SIGTERM, SIGINT])
  func interrupted(signal: Int32) throws {
    let (rig, device, _) = try changed(seed: 121)
    let process = try rig.shop.startAndStop(["snapshot", "web", "--workers", "1"]) {
      try refill(device)
    }
    process.signal(signal)
    process.signal(SIGCONT)
    #expect(process.wait() == 128 + signal)
    #expect(try rig.tracker(of: device)["writtenBytes"].number == Self.size)
    try expectTracked(rig)
  }

  @Test("After a pass that was killed the whole disk is read, and then it is tracked again")
  func killed() throws {
    let (rig, device, _) = try changed(seed: 122)
    let process = try rig.shop.startAndStop(["snapshot", "web", "--workers", "1"]) {
      try refill(device)
    }
    #expect(try rig.tracker(of: device)["point"].text == nil)
    process.signal(SIGKILL)
    #expect(process.wait() == 128 + SIGKILL)
    let disk = try rig.shop.snapshot()["disks"][0]
    #expect(disk["changeSource"].text == "scan")
    #expect(disk["scanReason"].text?.contains("counts from no restore point yet") == true)
    try rig.shop.write(rig.shop.bytes(70_000), to: device, at: 1 << 20)
    try expectTracked(rig)
  }

  @Test("A tracker that is in use costs the other collection a scan, not its point")
  func inUse() throws {
    let (rig, device, _) = try changed(seed: 123)
    let process = try rig.shop.startAndStop(["snapshot", "web", "--workers", "1"]) {
      try refill(device)
    }
    try rig.strobe("track", "stop", device).expect(1, says: "in use by another snapshot")
    let other = try rig.strobe("snapshot", "other", "--disk", "os=\(device)", "--json")
    #expect(other.status == 0)
    #expect(other.errors.contains("its tracker can't be used"))
    try rig.strobe("restore", "other@latest", "--disk", "os=\(rig.file("other"))", "-q").expect(0)
    expectSame(rig.file("other"), device)
    process.signal(SIGCONT)
    #expect(process.wait() == 0)
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("again"))", "-q").expect(0)
    expectSame(rig.file("again"), device)
    try expectTracked(rig)
  }

  @Test("A tracker that missed writes is found out, stopped and reported; the point is right")
  func lie() throws {
    let (rig, device, backing) = try changed(seed: 124)
    try rig.shop.snapshot()
    // Beside the device, then what it remembers is forgotten.
    try rig.shop.write(rig.shop.bytes(Self.size), to: backing)
    try Shell.run("blockdev", "--flushbufs", device)
    let point = try rig.shop.snapshot()
    let disk = point["disks"][0]
    #expect(disk["changeSource"].text == "scan")
    #expect(disk["scanReason"].text?.contains("the tracker missed a write to \(device)") == true)
    #expect(
      point["warnings"].list.contains { $0.text?.contains("the tracker was stopped") == true })
    #expect(disk["changedChunks"].number == Self.size / 65536)
    try rig.strobe("track", "status").expect(0).prints("No tracker is running.")
    expectSame(rig.shop.kept[rig.shop.kept.count - 1].copy, backing)
    try rig.shop.expectWhole()
  }

  @Test("A disk that can't be read gives the marks back, and the next point is tracked")
  func readError() throws {
    let rig = try Rig(seed: 125)
    let system = try rig.fileSystem("btrfs", mebibytes: 192)
    let image = try rig.image(16, random: 16, in: system.mountPoint)
    let device = try rig.loop(on: image)
    try rig.strobe("track", "start", device).expect(0)
    try rig.shop.snapshot("--disk", "os=\(device)")
    let pattern = "strobe-rots-here-" + hexadecimal(randomBytes(8))
    var bytes = rig.shop.bytes(8192)
    bytes.replaceSubrange(0..<pattern.utf8.count, with: pattern.utf8)
    try rig.shop.write(bytes, to: device, at: 5 << 20)
    try Shell.run("sync", "--file-system", image)
    let found = try Shell.run("grep", "-obUaF", "--max-count=1", pattern, system.image)
    let offset = try #require(found.split(separator: ":").first.flatMap { Int($0) })
    try writeBytes(Array("rotten".utf8), to: system.image, at: offset + 100)
    for path in [device, image, system.device] {
      let file = try FileDescriptor(opening: path, O_RDONLY)
      posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
    }
    try rig.strobe("snapshot", "web").expect(1, says: device, "read error at byte \(5 << 20)")
    try rig.shop.write(bytes, to: device, at: 5 << 20)
    try expectTracked(rig)
  }
}
