import Platform
import TestSupport
import Testing

/// What tired people do, found by somebody who used the program for the first time.
@Suite("Slips at 3 a.m.")
struct SlipTests {
  @Test(
    "A device with nothing attached is no disk, neither as source nor as target",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func detached() throws {
    let shop = try Workshop(seed: 90)
    let device = try LoopDevice(size: 1 << 20, in: shop.folder)
    try shop.write(shop.bytes(4096), to: device.path)
    try shop.snapshot("--disk", "os=\(device.path)")
    // A number that no other test is given: what was just detached may be somebody else's by now.
    let nodes = TemporaryDirectory()
    let empty = nodes.file("empty")
    try Shell.run("mknod", empty, "b", "7", "250")
    try shop.strobe("snapshot", "web", "--disk", "os=\(empty)").expect(
      1, says: "\(empty) has 0 bytes", "--disk os=PATH")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(empty)").expect(
      1, says: "target \(empty) has 0 bytes", "attach it")
    try shop.expectWhole()
  }

  @Test("A roll back goes to the disk's own source, never to another disk of the machine")
  func wrongDisk() throws {
    let shop = try Workshop(seed: 91)
    let (os, data) = (try shop.image("os.img", 1 << 20), try shop.image("data.img", 1 << 20))
    try shop.snapshot("--disk", "os=\(os)", "--disk", "data=\(data)")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(data)", "--overwrite-source").expect(
      1, says: "is disk data of collection web, not os", "--forget-disk data")
    expectSame(data, shop.kept[1].copy)
    try shop.write(shop.bytes(5000), to: os)
    try Shell.run("chown", "12:34", os)
    try Shell.run("chmod", "640", os)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(os)", "--overwrite-source").expect(0)
    expectSame(os, shop.kept[0].copy)
    #expect(try Shell.run("stat", "--format=%u:%g %a", os) == "12:34 640\n")
  }

  @Test("A disk of another collection is protected as well") func otherCollection() throws {
    let shop = try Workshop(seed: 92)
    let (mine, theirs) = (try shop.image("a", 1 << 20), try shop.image("b", 1 << 20))
    try shop.snapshot("--disk", "os=\(mine)")
    try shop.strobe("snapshot", "other", "--disk", "x=\(theirs)").expect(0)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(theirs)", "--overwrite").expect(
      1, says: "is disk x of collection other", "--overwrite-source")
    try shop.expectWhole()
  }

  @Test(
    "A source is protected under every name: its file, a second loop device, its whole disk",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func overlapping() throws {
    let shop = try Workshop(seed: 96)
    let device = try LoopDevice(size: 1 << 20, in: shop.folder)
    try shop.write(shop.bytes(1 << 20), to: device.path)
    try shop.snapshot("--disk", "os=\(device.path)")
    let second = try Shell.run("losetup", "--find", "--show", device.backing).filter {
      !$0.isNewline
    }
    defer { _ = try? Shell.run("losetup", "--detach", second) }
    for target in [second, device.backing] {
      let result = try shop.strobe("restore", "web@latest", "--overwrite", "--disk", "os=\(target)")
      result.expect(1, says: "disk os of collection web itself", "--overwrite-source")
    }
    try shop.expectWhole()
  }

  @Test(
    "A loop device whose path now leads to another file with the same number is read, not guessed",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func overMounted() throws {
    let shop = try Workshop(seed: 97)
    let place = shop.file("place")
    try Shell.run("mkdir", place)
    func mountTmpfs() throws { try Shell.run("mount", "-t", "tmpfs", "none", place) }
    try mountTmpfs()
    defer { _ = try? Shell.run("umount", place) }
    try shop.write(shop.bytes(1 << 20), to: try shop.image("content", 1 << 20))
    try Shell.run("cp", shop.file("content"), place + "/disk")
    try Shell.run("truncate", "-s", "2M", place + "/disk")
    let loop = try Shell.run("losetup", "--find", "--show", place + "/disk").filter {
      !$0.isNewline
    }
    defer { _ = try? Shell.run("losetup", "--detach", loop) }
    try mountTmpfs()
    defer { _ = try? Shell.run("umount", place) }
    // The first file of a fresh tmpfs: the same inode number, nothing but a hole.
    try Shell.run("truncate", "-s", "2M", place + "/disk")
    let point = try shop.strobe("snapshot", "web", "--disk", "os=\(loop)", "--json").expect(0)
      .json()
    #expect(point["disks"][0]["changedBytes"].number == 1 << 20)
  }

  @Test("Disks whose names are mixed up are not stored under each other's") func swapped() throws {
    let shop = try Workshop(seed: 93)
    let (os, data) = (try shop.image("os.img", 1 << 20), try shop.image("data.img", 1 << 20))
    try shop.snapshot("--disk", "os=\(os)", "--disk", "data=\(data)")
    try shop.strobe("snapshot", "web", "--disk", "os=\(data)", "--disk", "data=\(os)").expect(
      1, says: "was disk data at the last point", "--same-disk os")
    try shop.snapshot(
      "--disk", "os=\(data)", "--disk", "data=\(os)", "--same-disk", "os", "--same-disk", "data")
    try shop.expectWhole()
  }

  @Test("A replaced disk is told on standard error, also with --quiet") func replaced() throws {
    let shop = try Workshop(seed: 94)
    try shop.snapshot("--disk", "os=\(try shop.image("old", 1 << 20))")
    let new = try shop.image("new", 1 << 20)
    let result = try shop.strobe("snapshot", "web", "--quiet", "--disk", "os=\(new)")
    #expect(result.status == 0)
    #expect(result.errors.contains("disk os was replaced"))
    #expect(result.errors.contains("--same-disk os"))
  }

  @Test("Damage is named with every point that has it, and a full point is whole again")
  func sharedDamage() throws {
    let shop = try Workshop(seed: 95)
    let disk = try shop.image("os.img", 1 << 20)
    let first = try shop.snapshot("--disk", "os=\(disk)")["id"].text!
    try shop.write(shop.bytes(4096), to: disk, at: 128 << 10)
    let second = try shop.snapshot()["id"].text!
    let segment = try Shell.run("find", shop.strobe.repository + "/segments", "-name", first + "*")
    try Shell.run("rm", segment.filter { !$0.isNewline })
    let result = try shop.strobe("verify", "--json")
    #expect(result.status == 1)
    let damage = try result.json()["damage"].list
    let shared = [first, second].map { "web@\($0.prefix(12))" }
    let points = damage.map { $0["points"].list.compactMap { $0.text } }
    // What the second point overwrote is damaged in the first alone.
    #expect(points == [shared, [shared[0]], shared])
    #expect(damage.map { $0["offset"].number! } == [0, 128 << 10, 192 << 10])
    let full = try shop.strobe("snapshot", "web", "--full", "--json").expect(0).json()
    #expect(full["disks"][0]["newChainReason"].text == "a full point was asked for")
    let target = shop.file("restored")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(0)
    expectSame(target, disk)
  }
}
