import TestSupport
import Testing

@Suite("Disks of 16 TiB")
struct HugeDiskTests {
  private static let size = 16 << 40
  private static let memoryLimit = 256 << 20

  /// Runs a command of strobe under `/usr/bin/time` and checks how much memory it took.
  private func measured(
    _ shop: Workshop, _ words: String..., at location: SourceLocation = #_sourceLocation
  ) throws -> Shell.Result {
    let report = shop.file("memory")
    let time = ["/usr/bin/time", "--format=%M", "--output=\(report)", Strobe.program]
    let result = try Shell.capture(
      time + words, environment: ["STROBE_REPOSITORY": shop.strobe.repository])
    let kilobytes = Int(try Shell.run("tail", "-n1", report).filter(\.isNumber)) ?? .max
    #expect(kilobytes <= Self.memoryLimit >> 10, "\(words[0])", sourceLocation: location)
    return result
  }

  private func exercise(_ shop: Workshop, _ disk: String) throws {
    try shop.write(shop.bytes(1 << 20), to: disk)
    try shop.write(shop.bytes(70_000), to: disk, at: 9 << 40)
    try shop.write(shop.bytes(4096), to: disk, at: Self.size - 4096)
    let first = try measured(shop, "snapshot", "web", "--disk", "os=\(disk)", "--json").expect(0)
      .json()
    #expect(first["disks"][0]["size"].number == Self.size)
    #expect(try #require(first["disks"][0]["readBytes"].number) < 8 << 20)
    try shop.write(shop.bytes(100), to: disk, at: 9 << 40)
    let second = try measured(shop, "snapshot", "web", "--json").expect(0).json()
    #expect(second["disks"][0]["changedChunks"].number == 1)
    try measured(shop, "show", "web@latest").expect(0).prints("16 TiB")
    try measured(shop, "diff", "web@-1", "web@latest").expect(0).prints(
      "changed  \(9 << 40)  65536")
    try measured(shop, "verify").expect(0).prints("everything is as it was stored")
    let target = shop.file("target.raw")
    try measured(shop, "restore", "web@latest", "--disk", "os=\(target)").expect(0)
    #expect(try Shell.run("stat", "--format=%s", target).filter(\.isNumber) == "\(Self.size)")
    for offset in [0, 9 << 40, Self.size - (1 << 20)] {
      try Shell.run(
        "cmp", "--ignore-initial=\(offset)", "--bytes=\(1 << 20)", disk, target)
    }
    #expect(shop.leftovers() == [])
  }

  @Test(
    "A sparse image is snapshotted and restored in seconds, in 256 MiB of memory",
    .enabled(if: Machine.has("time"), "needs /usr/bin/time"))
  func image() throws {
    let shop = try Workshop(seed: 11)
    try exercise(shop, try shop.image("disk.raw", Self.size, random: 0))
  }

  @Test(
    "So is a device on a sparse file",
    .enabled(
      if: Machine.hasLoopDevices && Machine.has("time"), "needs loop devices and /usr/bin/time"))
  func device() throws {
    let shop = try Workshop(seed: 12, chunkSize: "1MiB")
    let device = try LoopDevice(size: Self.size, in: shop.folder)
    try shop.write(shop.bytes(4096), to: device.path, at: Self.size - 4096)
    try measured(shop, "snapshot", "web", "--disk", "os=\(device.path)").expect(0).prints("16 TiB")
    let target = try LoopDevice(size: Self.size, in: shop.folder)
    try shop.write(shop.bytes(4096), to: target.path, at: 7 << 40)
    try measured(shop, "restore", "web@latest", "--disk", "os=\(target.path)").expect(0)
    for offset in [0, 7 << 40, Self.size - (1 << 20)] {
      try Shell.run(
        "cmp", "--ignore-initial=\(offset)", "--bytes=\(1 << 20)", device.path, target.path)
    }
    withExtendedLifetime((device, target)) {}
  }
}
