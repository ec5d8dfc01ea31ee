import Platform
import TestSupport
import Testing

@Suite(
  "Snapshots of tracked devices", .enabled(if: Needs.trackers, Needs.trackerComment))
struct TrackedSnapshotTests {
  /// A tracked device with a point that its tracker counts from.
  private func tracked(
    seed: UInt64, mebibytes: Int = 32, chunkSize: String = "64KiB"
  ) throws -> (rig: Rig, device: String, backing: String) {
    let rig = try Rig(seed: seed, chunkSize: chunkSize)
    let (device, backing) = try rig.device(mebibytes, random: mebibytes / 4)
    try rig.strobe("track", "start", device).expect(0).prints("Tracking \(device).")
    try rig.shop.snapshot("--disk", "os=\(device)")
    return (rig, device, backing)
  }

  /// Takes a point and checks how its changes were found.
  @discardableResult
  private func expectPoint(
    _ rig: Rig, _ source: String, why: String? = nil,
    at location: SourceLocation = #_sourceLocation
  ) throws -> JSON {
    let point = try rig.shop.snapshot(at: location)
    let disk = point["disks"][0]
    #expect(disk["changeSource"].text == source, sourceLocation: location)
    if let why {
      #expect(
        disk["scanReason"].text?.contains(why) == true, "\(disk["scanReason"].text ?? "none")",
        sourceLocation: location)
      try rig.strobe("show", "web@latest").expect(0, at: location)
        .prints("Read whole   ", why, at: location)
    } else {
      #expect(disk["scanReason"].text == nil, sourceLocation: location)
    }
    return point
  }

  @Test(
    "Whatever was written is in the point, and nothing else is read",
    arguments: ["4KiB", "64KiB", "4MiB"])
  func writes(chunkSize: String) throws {
    let (rig, device, _) = try tracked(seed: 100, chunkSize: chunkSize)
    var random = SeededGenerator(seed: 100)
    for round in 0..<5 {
      for _ in 0..<(1 + round * 2) {
        let offset = Int.random(in: 0..<(31 << 20), using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0:
          let count = Int.random(in: 1...200_000, using: &random)
          try rig.shop.write(random.bytes(count), to: device, at: offset)
        case 1:
          let name = rig.file("piece")
          try writeBytes(random.bytes(8192), to: name)
          try Shell.run(
            "dd", "if=\(name)", "of=\(device)", "bs=4096", "seek=\(offset / 4096)", "oflag=direct",
            "conv=notrunc", "status=none")
        default:
          let start = offset / 4096 * 4096
          try Shell.run("blkdiscard", "--offset", "\(start)", "--length", "131072", device)
        }
      }
      try expectPoint(rig, "tracked")
    }
    try rig.shop.expectWhole()
  }

  @Test("What is read grows with what was written, not with the disk")
  func readBytes() throws {
    let (rig, device, _) = try tracked(seed: 101, mebibytes: 48)
    let sample = 64 * 65536
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 1 << 20)
    let small = try expectPoint(rig, "tracked")["disks"][0]["readBytes"].number ?? 0
    #expect(small <= sample + 65536)
    try rig.shop.write(rig.shop.bytes(16 << 20), to: device, at: 4 << 20)
    let large = try expectPoint(rig, "tracked")["disks"][0]["readBytes"].number ?? 0
    #expect(large >= 16 << 20 && large <= 16 << 20 + sample)
    try rig.shop.expectWhole()
  }

  @Test(
    "Writes through a partition are in the point of the disk, and of the partition's own",
    .enabled(if: Machine.has("sfdisk", "partx"), "needs sfdisk and partx"))
  func partition() throws {
    let rig = try Rig(seed: 102)
    let disk = try rig.loop(on: try rig.image(24, random: 24), partitions: true)
    let made = try rig.run([
      "sh", "-c",
      "printf 'label: gpt\\nstart=2056,size=8MiB\\nsize=8MiB\\n' | sfdisk -q \(disk) && partx -u \(disk)",
    ])
    try #require(made.status == 0, "\(made.errors)")
    let part = disk + "p1"
    try rig.strobe("track", "start", disk, part).expect(0)
    try rig.shop.snapshot("--disk", "all=\(disk)", "--disk", "part=\(part)")
    try rig.shop.write(rig.shop.bytes(300_000), to: part, at: 1_234_567)
    var point = try rig.shop.snapshot()
    #expect(point["disks"].list.allSatisfy { $0["changeSource"].text == "tracked" })
    #expect(point["disks"].list.allSatisfy { $0["changedChunks"].number! >= 5 })
    // Into the partition, through the disk.
    try rig.shop.write(rig.shop.bytes(100_000), to: disk, at: 2056 * 512 + 3_000_000)
    try Shell.run("blockdev", "--flushbufs", part)
    point = try rig.shop.snapshot()
    #expect(point["disks"].list.allSatisfy { $0["changeSource"].text == "tracked" })
    try rig.shop.expectWhole()
  }

  @Test("The first point after the start is a scan that says why, with --track keep as well")
  func firstPoint() throws {
    let rig = try Rig(seed: 103)
    let (device, _) = try rig.device(16, random: 8)
    try rig.shop.snapshot("--disk", "os=\(device)")
    try rig.strobe("track", "start", device).expect(0)
    try rig.shop.write(rig.shop.bytes(4096), to: device)
    try expectPoint(rig, "scan", why: "counts from no restore point yet")
    try expectPoint(rig, "tracked")
    try rig.strobe("track", "stop", device).expect(0).prints("Stopped \(device).")
    try expectPoint(rig, "scan")
    let kept = try rig.shop.snapshot("--track", "keep")
    #expect(kept["disks"][0]["scanReason"].text?.contains("no restore point yet") == true)
    #expect(try rig.tracker(of: device)["lost"].text == nil)
    try rig.shop.write(rig.shop.bytes(4096), to: device, at: 9 << 20)
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A device that was attached anew is read whole, and tracked from then on")
  func reattached() throws {
    let (rig, device, backing) = try tracked(seed: 104)
    try Shell.run("losetup", "--detach", device)
    try rig.shop.write(rig.shop.bytes(65536), to: backing, at: 3 << 20)
    // Somebody else may have taken the number.
    guard (try? Shell.run("losetup", device, backing)) != nil else { return }
    try rig.strobe("track", "status").expect(3).prints("lost: ")
    let point = try expectPoint(rig, "scan", why: "lost writes")
    #expect(point["warnings"][0].text?.contains("started anew") == true)
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 5 << 20)
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A device that was resized is read whole, and tracked from then on")
  func resized() throws {
    let (rig, device, backing) = try tracked(seed: 105)
    try Shell.run("truncate", "-s", "40M", backing)
    try Shell.run("losetup", "--set-capacity", device)
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 38 << 20)
    let status = try rig.tracker(of: device)
    #expect(status["lost"].text?.contains("its size was 33554432 bytes") == true)
    try expectPoint(rig, "scan", why: "its size was")
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 39 << 20)
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A tracker that was stopped and started counts from no point")
  func restarted() throws {
    let (rig, device, _) = try tracked(seed: 106)
    try rig.strobe("track", "stop", device).expect(0)
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 3 << 20)
    try rig.strobe("track", "start", device).expect(0)
    try expectPoint(rig, "scan", why: "counts from no restore point yet")
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A point of another collection in between costs a scan, not content")
  func otherCollection() throws {
    let (rig, device, _) = try tracked(seed: 107)
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 3 << 20)
    try rig.strobe("snapshot", "other", "--disk", "os=\(device)").expect(0)
    try expectPoint(rig, "scan", why: "counts from another restore point")
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 5 << 20)
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A point taken with --track none in between, and a deleted newest point, cost a scan")
  func strangersToTheTracker() throws {
    let (rig, device, _) = try tracked(seed: 108)
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 3 << 20)
    let blind = try rig.shop.snapshot("--track", "none")
    #expect(blind["disks"][0]["changeSource"].text == "scan")
    try expectPoint(rig, "scan", why: "counts from another restore point")
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 5 << 20)
    try expectPoint(rig, "tracked")
    try rig.strobe("delete", "web@latest").expect(0)
    rig.shop.forget(rig.shop.kept[rig.shop.kept.count - 1].point)
    try expectPoint(rig, "scan", why: "counts from another restore point")
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }

  @Test("A restore onto a tracked device is seen by its tracker")
  func restored() throws {
    let (rig, device, _) = try tracked(seed: 110)
    try rig.shop.write(rig.shop.bytes(9 << 20), to: device, at: 3 << 20)
    try expectPoint(rig, "tracked")
    try rig.strobe(
      "restore", "web@-1", "--disk", "os=\(device)", "--overwrite-source", "--quiet"
    ).expect(0)
    try expectPoint(rig, "tracked")
    let kept = rig.shop.kept.map(\.copy)
    expectSame(kept[2], kept[0])
    try rig.shop.expectWhole()
  }

  @Test("A full point is read whole without an excuse, and the next one is tracked")
  func full() throws {
    let (rig, device, _) = try tracked(seed: 109)
    let full = try rig.shop.snapshot("--full")
    #expect(full["disks"][0]["changeSource"].text == "scan")
    #expect(full["disks"][0]["newChainReason"].text == "a full point was asked for")
    try rig.shop.write(rig.shop.bytes(65536), to: device, at: 5 << 20)
    try expectPoint(rig, "tracked")
    try rig.shop.expectWhole()
  }
}
