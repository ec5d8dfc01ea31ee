import TestSupport
import Testing

@Suite("Disks as they are")
struct DiskShapeTests {
  private static let chunk = 64 << 10

  @Test(
    "A disk of any whole number of sectors is restored bit for bit",
    arguments: [
      512, 4096 + 512, chunk - 512, chunk, chunk + 512, 64 * chunk - 512, 65 * chunk + 4608,
    ])
  func sizes(size: Int) throws {
    let shop = try Workshop(seed: UInt64(size))
    let disk = try shop.image("disk.raw", size)
    try shop.snapshot("--disk", "os=\(disk)")
    try shop.write(shop.bytes(512), to: disk, at: size - 512)
    let second = try shop.snapshot()
    #expect(second["disks"][0]["changedChunks"].number == 1)
    try shop.write([UInt8](repeating: 0, count: size), to: disk)
    let third = try shop.snapshot()
    #expect(third["disks"][0]["clearedChunks"].number == (size + Self.chunk - 1) / Self.chunk)
    try shop.expectWhole()
  }

  @Test("An image that is no whole number of sectors is refused with the way to pad it")
  func oddSize() throws {
    let shop = try Workshop()
    let disk = try shop.image("disk.raw", 1000)
    try shop.strobe("snapshot", "web", "--disk", "os=\(disk)")
      .expect(2, says: disk, "1000 bytes", "sectors", "truncate -s %512 \(disk)")
    #expect(try shop.objects() == [])
  }

  @Test(
    "A device of odd size is a source and a target",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func oddDevice() throws {
    let shop = try Workshop(seed: 5)
    let size = 3 * Self.chunk + 512
    let source = try LoopDevice(size: size, in: shop.folder)
    let target = try LoopDevice(size: size, in: shop.folder)
    try shop.write(shop.bytes(size), to: source.path)
    try shop.write(shop.bytes(size), to: target.path)
    try shop.snapshot("--disk", "os=\(source.path)")
    try shop.write([UInt8](repeating: 0, count: 512), to: source.path, at: size - 512)
    try shop.snapshot()
    for kept in shop.kept {
      try shop.strobe("restore", kept.point, "--disk", "os=\(target.path)").expect(0)
      expectSame(target.path, kept.copy)
    }
    try shop.expectWhole()
    withExtendedLifetime((source, target)) {}
  }

  @Test("A disk that grows and shrinks keeps its chain, and what was cut off never comes back")
  func resizing() throws {
    let shop = try Workshop(seed: 6)
    let disk = try shop.image("disk.raw", 40 * Self.chunk)
    try shop.snapshot("--disk", "os=\(disk)")
    for size in [
      70 * Self.chunk + 512, 20 * Self.chunk + 1024, 40 * Self.chunk, 512, 90 * Self.chunk,
    ] {
      try Shell.run("truncate", "-s", "\(size)", disk)
      let point = try shop.snapshot()
      #expect(point["disks"][0]["size"].number == size)
      #expect(point["disks"][0]["newChainReason"].text == nil)
    }
    try shop.expectWhole()
    let (old, new) = (shop.kept[2].point, shop.kept[3].point)
    try shop.strobe("diff", old, new).expect(0)
      .prints("the size went from \(20 * Self.chunk + 1024) to \(40 * Self.chunk) bytes")
    // Bytes 0 to 511 alone are left of what the disk was.
    try Shell.run(
      "cmp", "--ignore-initial=512", "--bytes=\(90 * Self.chunk - 512)", disk, "/dev/zero")
  }

  @Test("Disks come and go; a removed disk that isn't named stops the snapshot and says what to do")
  func addAndForget() throws {
    let shop = try Workshop(seed: 7)
    let (os, data) = (try shop.image("os.raw", 1 << 20), try shop.image("data.raw", 1 << 20))
    try shop.snapshot("--disk", "os=\(os)")
    let second = try shop.snapshot("--disk", "data=\(data)")
    #expect(second["disks"].list.map { $0["name"].text } == ["os", "data"])
    #expect(second["disks"][1]["newChainReason"].text?.contains("not in the parent point") == true)
    try Shell.run("mv", data, data + ".moved")
    let before = try shop.objects()
    try shop.strobe("snapshot", "web")
      .expect(
        1, says: "disk data", data, "does not exist", "--disk data=PATH", "--forget-disk data")
    #expect(try shop.objects() == before)
    try shop.strobe("snapshot", "web", "--forget-disk", "dat").expect(1, says: "'dat'", "os, data")
    let third = try shop.snapshot("--disk", "data=\(data).moved")
    #expect(third["disks"][1]["newChainReason"].text == nil)
    #expect(third["disks"][1]["changedChunks"].number == 0)
    let fourth = try shop.snapshot("--forget-disk", "data")
    #expect(fourth["disks"].list.map { $0["name"].text } == ["os"])
    try shop.strobe("diff", "web@-1", "web@latest").expect(0).prints(
      "the newer point has no such disk")
    #expect(try shop.snapshot()["disks"].list.count == 1)
    try shop.expectWhole()
  }

  @Test(
    "Another disk under the same name starts a new chain and says why; --same-disk continues it")
  func replacement() throws {
    let shop = try Workshop(seed: 8)
    let (old, new) = (try shop.image("old.raw", 1 << 20), shop.file("new.raw"))
    try shop.snapshot("--disk", "os=\(old)")
    try Shell.run("cp", old, new)
    let replaced = try shop.snapshot("--disk", "os=\(new)")
    let reason = try #require(replaced["disks"][0]["newChainReason"].text)
    #expect(reason.contains("disk os was replaced") && reason.contains("file:inode:"))
    #expect(replaced["disks"][0]["layers"].list.count == 1)
    try shop.strobe("show", "web@latest").expect(0).prints("New chain", "was replaced")
    let same = try shop.snapshot("--disk", "os=\(old)", "--same-disk", "os")
    #expect(same["disks"][0]["newChainReason"].text == nil)
    #expect(same["disks"][0]["changedChunks"].number == 0)
    try shop.strobe("snapshot", "web", "--same-disk", "so").expect(1, says: "'so'")
    try shop.expectWhole()
  }

  @Test("Of a sparse file only the data is read, and holes stay holes when it is restored")
  func sparse() throws {
    let shop = try Workshop(seed: 9)
    let disk = try shop.image("disk.raw", 4 << 30, random: 1 << 20)
    try shop.write(shop.bytes(4096), to: disk, at: 3 << 30)
    let point = try shop.snapshot("--disk", "os=\(disk)")
    #expect(try #require(point["disks"][0]["readBytes"].number) < 2 << 20)
    let target = shop.file("target.raw")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(0)
    let blocks = try Shell.run("stat", "--format=%b", target).filter(\.isNumber)
    #expect(try #require(Int(blocks)) * 512 < 2 << 20)
    try Shell.run("rm", target)
    let next = try shop.snapshot()
    #expect(try #require(next["disks"][0]["readBytes"].number) < 2 << 20)
    try Shell.run("cmp", "--bytes=\(4 << 20)", disk, shop.kept[0].copy)
    shop.forget("web@")
    try shop.strobe("verify").expect(0)
  }

  @Test(
    "All zeros store nothing; everything changed stores everything; nothing changed stores nothing")
  func extremes() throws {
    let shop = try Workshop(seed: 10)
    let size = 4 << 20
    let disk = try shop.image("disk.raw", size, random: 0)
    try shop.write([UInt8](repeating: 0, count: size), to: disk)
    func change() throws -> (chunks: Int?, stored: Int?) {
      let point = try shop.snapshot("--disk", "os=\(disk)")["disks"][0]
      return (point["changedChunks"].number, point["storedBytes"].number)
    }
    #expect(try change() == (0, 0))
    try shop.write(shop.bytes(size), to: disk)
    #expect(try #require(try change().stored) > size)
    #expect(try change() == (0, 0))
    try shop.write(shop.bytes(size), to: disk)
    #expect(try change().chunks == 64)
    try shop.write([UInt8](repeating: 0, count: size), to: disk)
    #expect(try change() == (64, 0))
    try shop.expectWhole()
  }
}
