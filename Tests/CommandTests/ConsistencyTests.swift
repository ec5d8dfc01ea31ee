import Glibc
import TestSupport
import Testing

@Suite(
  "What a point claims to be when nothing is frozen",
  .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct ConsistencyTests {
  /// Checks an Inconsistent snapshot of one disk: status 3, and why, for people and programs.
  private func expectInconsistent(
    _ shop: Workshop, _ path: String, _ why: String, at location: SourceLocation = #_sourceLocation
  ) throws {
    let result = try shop.strobe(
      "snapshot", "web", "--disk", "os=\(path)", "--json", "--freeze", "none", "--track", "none")
    result.expect(
      3, says: "strobe: warning: the point is Inconsistent", "disk os", path, why, at: location)
    let point = try result.json(at: location)
    #expect(point["consistency"].text == "Inconsistent", sourceLocation: location)
    #expect(point["consistencyReasons"][0].text?.contains(why) == true, sourceLocation: location)
    try shop.strobe("list").expect(0, at: location).prints("Inconsistent", at: location)
    try shop.strobe("show", "web@latest").expect(0, at: location).prints(why, at: location)
    try shop.strobe("verify").expect(0, at: location)
  }

  @Test(
    "A device that is mounted read-write is Inconsistent, read-only it is fine",
    arguments: ["ext4", "xfs", "btrfs"])
  func mounted(kind: String) throws {
    let shop = try Workshop()
    let device = try LoopDevice(size: 320 << 20, in: shop.folder)
    try withMounted(kind, device, in: shop.folder, make: true) { mount in
      try expectInconsistent(shop, device.path, "mounted read-write at \(mount)")
      try shop.strobe("restore", "web@latest", "--disk", "os=\(device.path)", "--overwrite-source")
        .expect(1, says: "target \(device.path)", "mounted at \(mount)", "umount \(mount)")
      try Shell.run("mount", "-o", "remount,ro", mount)
      #expect(try shop.snapshot()["consistency"].text == "CrashConsistent")
    }
    try shop.expectWhole()
  }

  @Test("An image file behind a mounted loop device is Inconsistent, and no target")
  func mountedImage() throws {
    let shop = try Workshop()
    let device = try LoopDevice(size: 16 << 20, in: shop.folder)
    try withMounted("ext4", device, in: shop.folder, make: true) { mount in
      try expectInconsistent(shop, device.backing, "mounted read-write at \(mount)")
      try shop.strobe(
        "restore", "web@latest", "--disk", "os=\(device.backing)", "--overwrite-source"
      )
      .expect(1, says: device.backing, "mounted at \(mount)")
    }
    try shop.strobe("restore", "web@latest", "--disk", "os=\(device.backing)", "--overwrite-source")
      .expect(1, says: device.backing, "attached to \(device.path)", "losetup -d \(device.path)")
    #expect(try shop.snapshot()["consistency"].text == "CrashConsistent")
    try shop.expectWhole()
  }

  @Test(
    "A mounted partition makes its whole disk Inconsistent",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func mountedPartition() throws {
    let shop = try Workshop()
    let disk = try LoopDevice(size: 24 << 20, partitions: true, in: shop.folder)
    let mount = shop.file("mounted")
    let made = try Shell.capture([
      "bash", "-c",
      """
      set -e; printf 'label: gpt\\nsize=8MiB\\n' | sfdisk --quiet \(disk.path); partx --update \(disk.path)
      mkfs.ext4 -q -F \(disk.path)p1; mkdir \(mount); mount \(disk.path)p1 \(mount)
      """,
    ])
    defer { _ = try? Shell.run("umount", mount) }
    try #require(made.status == 0, "\(made.errors)")
    try expectInconsistent(shop, disk.path, "mounted read-write at \(mount)")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(disk.path)", "--overwrite-source")
      .expect(1, says: "target \(disk.path)", "mounted at \(mount)")
    withExtendedLifetime(disk) {}
  }

  @Test(
    "A device that is written to while it is read is Inconsistent, a file too",
    arguments: [true, false])
  func written(isDevice: Bool) throws {
    let shop = try Workshop(seed: 13)
    let device = try LoopDevice(size: 48 << 20, in: shop.folder)
    let path = isDevice ? device.path : device.backing
    try shop.write(shop.bytes(48 << 20), to: path)
    let output = shop.file("output")
    let process = try shop.startAndStop(
      ["snapshot", "web", "--disk", "os=\(path)"], output: output)
    try shop.write(shop.bytes(4096), to: path, at: 1 << 20)
    process.signal(SIGCONT)
    #expect(process.wait() == 3)
    let errors = try Shell.run("cat", output + ".err")
    #expect(
      errors.contains("Inconsistent: disk os: \(path) was written to while it was read"),
      "\(errors)")
    try shop.strobe("verify").expect(0)
    #expect(try shop.snapshot()["consistency"].text == "CrashConsistent")
    try shop.expectWhole()
    withExtendedLifetime(device) {}
  }

  @Test(
    "A write through the whole disk is a write to its partition",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func throughTheWholeDisk() throws {
    let shop = try Workshop(seed: 14)
    let disk = try LoopDevice(size: 64 << 20, partitions: true, in: shop.folder)
    let made = try Shell.capture([
      "bash", "-c",
      "printf 'label: gpt\\nsize=56MiB\\n' | sfdisk --quiet \(disk.path); partx --update \(disk.path)",
    ])
    try #require(made.status == 0, "\(made.errors)")
    try shop.write(shop.bytes(48 << 20), to: disk.path + "p1")
    let process = try shop.startAndStop(
      ["snapshot", "web", "--disk", "os=\(disk.path)p1", "--track", "none"],
      output: shop.file("output"))
    try shop.write(shop.bytes(4096), to: disk.path, at: 8 << 20)
    process.signal(SIGCONT)
    #expect(process.wait() == 3)
    withExtendedLifetime(disk) {}
  }

  @Test("Swap space and devices that a program holds are Inconsistent, and no targets")
  func heldExclusively() throws {
    let shop = try Workshop()
    let device = try LoopDevice(size: 8 << 20, in: shop.folder)
    try Shell.run("mkswap", "--quiet", device.path)
    try shop.snapshot("--disk", "os=\(device.path)")
    let restore = ["restore", "web@latest", "--disk", "os=\(device.path)", "--overwrite-source"]
    try Shell.run("swapon", device.path)
    do {
      defer { _ = try? Shell.run("swapoff", device.path) }
      try shop.strobe.run(restore).expect(1, says: device.path, "swap space", "fuser -v")
      try shop.strobe("snapshot", "web", "--track", "none")
        .expect(3, says: device.path, "swap space")
    }
    let holder = try ExclusiveHolder(device.path)
    try shop.strobe.run(restore).expect(1, says: device.path, "holds it exclusively", "fuser -v")
    try shop.strobe("snapshot", "web", "--track", "none")
      .expect(3, says: device.path, "holds it exclusively")
    holder.release()
    try shop.strobe.run(restore).expect(0)
    try shop.expectWhole()
  }
}
