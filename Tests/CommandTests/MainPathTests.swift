import Platform
import TestSupport
import Testing

@Suite("The main path")
struct MainPathTests {
  private static let hasFileSystems =
    Machine.hasLoopDevices
    && Machine.has("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "xfs_repair")

  @Test(
    "A file system on a device is changed, snapshotted three times, and restored whole to another",
    .enabled(if: Self.hasFileSystems, "needs loop devices, ext4, XFS and Btrfs"),
    arguments: ["ext4", "xfs", "btrfs"], [512, 4096])
  func fileSystem(kind: String, sectorSize: Int) throws {
    let shop = try Workshop()
    let device = try LoopDevice(size: 320 << 20, sectorSize: sectorSize, in: shop.folder)
    for round in 0..<3 {
      try withMounted(kind, device, in: shop.folder, make: round == 0) { mount in
        try Shell.run("cp", Strobe.program, mount + "/program-\(round)")
        try shop.write(shop.bytes(300_000), to: makeFile(mount + "/random"))
        if round == 2 { try Shell.run("rm", mount + "/program-0") }
      }
      let point = try round == 0 ? shop.snapshot("--disk", "os=\(device.path)") : shop.snapshot()
      #expect(point["consistency"].text == "CrashConsistent")
      #expect(point["disks"][0]["logicalSectorSize"].number == sectorSize)
    }
    try shop.expectWhole()
    let target = try LoopDevice(size: 324 << 20, sectorSize: sectorSize, in: shop.folder)
    try Shell.run("dd", "if=\(Strobe.program)", "of=\(target.path)", "conv=fsync", "status=none")
    for (index, kept) in shop.kept.enumerated() {
      try shop.strobe("restore", kept.point, "--disk", "os=\(target.path)").expect(0)
        .prints("the last 4 MiB of the target are untouched")
      expectSame(target.path, kept.copy, "point \(index)")
      try check(kind, target.path)
    }
    try withMounted(kind, target, in: shop.folder) { mount in
      expectSame(mount + "/program-2", Strobe.program)
    }
  }

  private func makeFile(_ path: String) throws -> String {
    try Shell.run("touch", path)
    return path
  }

  private func check(_ kind: String, _ device: String) throws {
    switch kind {
    case "ext4": try Shell.run("e2fsck", "-fn", device)
    case "xfs": try Shell.run("xfs_repair", "-n", device)
    default: try Shell.run("btrfs", "check", device)
    }
  }

  @Test(
    "A partition is a source, and a target that leaves its neighbours alone",
    .enabled(if: Machine.hasLoopDevices && Machine.has("sfdisk"), "needs loop devices and sfdisk"))
  func partitions() throws {
    let shop = try Workshop()
    let disk = try LoopDevice(size: 24 << 20, partitions: true, in: shop.folder)
    try withExtendedLifetime(disk) {
      let layout = "label: gpt\nsize=4MiB\nsize=4MiB\nsize=6MiB\n"
      _ = try Shell.capture(["bash", "-c", "printf '\(layout)' | sfdisk --quiet \(disk.path)"])
      _ = try Shell.capture([
        "bash", "-c", "partx --update \(disk.path); udevadm settle 2>/dev/null; sync \(disk.path)",
      ])
      let parts = (1...3).map { "\(disk.path)p\($0)" }
      try #require(try FileFacts(path: parts[2])?.isBlockDevice == true)
      for part in parts { try shop.write(shop.bytes(4 << 20), to: part) }
      try shop.snapshot("--disk", "root=\(parts[0])")
      try shop.write(shop.bytes(100_000), to: parts[0], at: 12_345)
      let second = try shop.snapshot()
      #expect(second["disks"][0]["identity"].text?.hasSuffix(":partition:1") == true)
      let before = shop.file("before")
      try Shell.run("cp", parts[2], before)
      try shop.strobe("restore", "web@-1", "--disk", "root=\(parts[1])").expect(0)
      expectSame(parts[1], shop.kept[0].copy)
      expectSame(parts[2], before, "the partition behind the target")
      expectSame(parts[0], shop.kept[1].copy, "the source")
      try shop.expectWhole()
    }
  }

  @Test("Image files: everything that is done with points, for people and for programs")
  func images() throws {
    let shop = try Workshop(seed: 2)
    try shop.image("os.raw", 5 << 20)
    try shop.image("data.raw", 3 << 20, random: 1 << 20)
    let first = try shop.snapshot(
      "--disk", "os=\(shop.file("os.raw"))", "--disk", "data=\(shop.file("data.raw"))")
    try shop.write(shop.bytes(200), to: shop.file("os.raw"), at: (1 << 20) - 100)
    try shop.write([UInt8](repeating: 0, count: 1 << 17), to: shop.file("data.raw"))
    let second = try shop.snapshot()
    #expect(first["parent"].text == nil)
    #expect(second["parent"].text == first["id"].text)
    #expect(second["disks"][0]["changedChunks"].number == 2)
    #expect(second["disks"][1]["clearedChunks"].number == 2)
    try expectList(shop, first, second)
    try expectDifference(shop)
    try shop.expectWhole()
    let folder = shop.file("restored")
    try Shell.run("mkdir", folder)
    let report = try shop.strobe("restore", "web@latest", "--to", folder, "--json").expect(0).json()
    #expect(
      report["disks"].list.map { $0["target"].text } == ["\(folder)/os.raw", "\(folder)/data.raw"])
    expectSame(folder + "/os.raw", shop.kept[2].copy)
    expectSame(folder + "/data.raw", shop.kept[3].copy)
  }

  private func expectList(_ shop: Workshop, _ first: JSON, _ second: JSON) throws {
    let listed = try shop.strobe("list", "--json").expect(0).json()["collections"][0]
    #expect(listed["points"].list.map { $0["id"].text } == [first["id"].text, second["id"].text])
    #expect(listed["points"][0]["size"].number == 8 << 20)
    try shop.strobe("list").expect(0).prints(
      "POINT", "web@\(first["id"].text!.prefix(12))", "8 MiB")
    let shown = try shop.strobe("show", "web@latest", "--json").expect(0).json()
    #expect(shown["disks"][0]["layers"].list.count == 2)
    #expect(shown["freezeWindowMilliseconds"].number == nil)
    try shop.strobe("show", "web@latest").expect(0)
      .prints(
        "CrashConsistent", "Disk os", "2 layers", "nothing was frozen", "5 MiB (5242880 bytes")
  }

  private func expectDifference(_ shop: Workshop) throws {
    let disks = try shop.strobe("diff", "web@-1", "web@latest", "--json").expect(0).json()["disks"]
    #expect(disks[0]["ranges"].list.count == 1)
    #expect(disks[0]["ranges"][0]["kind"].text == "changed")
    #expect(disks[0]["ranges"][0]["offset"].number == (1 << 20) - (64 << 10))
    #expect(disks[0]["ranges"][0]["length"].number == 128 << 10)
    #expect(disks[1]["ranges"][0]["kind"].text == "cleared")
    #expect(disks[1]["clearedBytes"].number == 128 << 10)
    try shop.strobe("diff", "web@-1", "web@latest", "--disk", "data").expect(0)
      .prints("Disk data: 0 B changed, 128 KiB cleared, 1 range", "cleared  0  131072")
  }

  @Test("Deleting a point and gc give space back and leave the others as they were")
  func deletion() throws {
    let shop = try Workshop(seed: 3)
    let disk = try shop.image("disk.raw", 4 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    for _ in 0..<3 {
      try shop.write(shop.bytes(1 << 20), to: disk, at: 1 << 20)
      try shop.snapshot()
    }
    let middle = shop.kept[1].point
    try shop.strobe("delete", middle, "web@-1").expect(0).prints("Deleted \(middle.prefix(16)).")
    shop.forget(middle)
    let other = shop.kept[1].point
    shop.forget(other)
    try shop.expectWhole()
    let plan = try shop.strobe("gc", "--dry-run", "--json").expect(0).json()
    let freed = try shop.strobe("gc", "--json").expect(0).json()
    // What merging makes a segment of nobody's is known only then: a block each.
    let more = freed["bytes"].number! - plan["bytes"].number!
    #expect(more >= 0 && more <= 4096 * freed["segments"].number!)
    // The newest point's chain still names the layers between; nothing that it needs may go.
    try shop.expectWhole()
    try shop.strobe("delete", "web@latest", "web@-1").expect(0)
    try shop.strobe("gc").expect(0).prints("Freed 5.0 MiB")
    #expect(try shop.objects() == [])
    try shop.strobe("restore", "web@latest", "--to", shop.folder.path)
      .expect(1, says: "collection web has no restore points", "strobe snapshot web")
    shop.forget("web@")
    try shop.snapshot()
    try shop.expectWhole()
  }

  @Test(
    "With --quiet a command that is done says nothing, and --repository wins over the environment")
  func quiet() throws {
    let shop = try Workshop(seed: 4)
    let disk = try shop.image("disk.raw", 1 << 20)
    let other = shop.file("other")
    func quiet(_ words: String...) throws {
      let result = try shop.strobe.run(words + ["--quiet", "--repository", other]).expect(0)
      #expect(result.output == "")
    }
    try quiet("init")
    try quiet("snapshot", "web", "--disk", "os=\(disk)")
    try quiet("restore", "web@latest", "--disk", "os=\(shop.file("copy.raw"))")
    try quiet("verify")
    try quiet("delete", "web@latest")
    try quiet("gc")
    let list = try shop.strobe("list")
    #expect(list.status == 0 && list.output == "")
    #expect(list.errors == "there are no restore points\n")
    let without = try Shell.capture(["env", "-u", "STROBE_REPOSITORY", Strobe.program, "list"])
    without.expect(2, says: "--repository", "STROBE_REPOSITORY")
  }
}
