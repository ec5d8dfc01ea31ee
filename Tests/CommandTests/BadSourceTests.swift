import Platform
import TestSupport
import Testing

@Suite("Sources and names that can't be")
struct BadSourceTests {
  /// Takes a first point, runs a snapshot that must fail, and checks that nothing changed.
  private func expectRefused(
    _ words: [String], _ status: Int32, _ says: [String],
    at location: SourceLocation = #_sourceLocation, _ prepare: (Workshop) throws -> Void = { _ in }
  ) throws {
    let shop = try Workshop()
    let disk = try shop.image("disk.raw", 200_704)
    try shop.snapshot("--disk", "os=\(disk)")
    try prepare(shop)
    let before = try shop.objects()
    let place = { (word: String) in word.replacing("FOLDER", with: shop.folder.path) }
    let result = try shop.strobe.run(["snapshot"] + words.map(place))
    result.expect(status, at: location)
    #expect(result.output == "", sourceLocation: location)
    for word in says {
      #expect(result.errors.contains(place(word)), "\(result.errors)", sourceLocation: location)
    }
    #expect(result.errors.split(separator: "\n").count == 1, sourceLocation: location)
    #expect(try shop.objects() == before, sourceLocation: location)
    try shop.expectWhole(at: location)
  }

  @Test(
    "A source that is missing or no disk is refused, and doesn't hang",
    arguments: [
      ("FOLDER/missing", 1, "does not exist"),
      ("FOLDER", 2, "neither a block device nor a regular file"),
      ("/dev/null", 2, "neither a block device nor a regular file"),
      ("FOLDER/fifo", 2, "neither a block device nor a regular file"),
      ("FOLDER/disk.raw/x", 1, "does not exist"), ("FOLDER/loop", 1, "symbolic links"),
    ] as [(String, Int32, String)])
  func wrongKind(path: String, status: Int32, says: String) throws {
    try expectRefused(["web", "--disk", "data=\(path)"], status, [path, says]) { shop in
      try Shell.run("mkfifo", shop.file("fifo"))
      try Shell.run("ln", "-s", "loop", shop.file("loop"))
    }
  }

  @Test(
    "A source that may not be read is named, with what to do",
    .enabled(if: Machine.isRoot && Machine.has("setpriv"), "needs root and setpriv"))
  func unreadable() throws {
    let folder = TemporaryDirectory()
    try Shell.run("chmod", "755", folder.path)
    try Shell.run("cp", Strobe.program, folder.file("strobe"))
    try Shell.run("truncate", "-s", "1M", folder.file("disk.raw"))
    try Shell.run("chmod", "600", folder.file("disk.raw"))
    try Shell.run("mkdir", "-m", "777", folder.file("repository"))
    let user = [
      "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", folder.file("strobe"),
    ]
    let place = ["--repository", folder.file("repository")]
    try Shell.capture(user + ["init"] + place).expect(0)
    try Shell.capture(
      user + ["snapshot", "web", "--disk", "os=\(folder.file("disk.raw"))"] + place
    )
    .expect(1, says: folder.file("disk.raw"), "Permission denied", "run it as root")
    try Shell.capture(user + ["verify"] + place).expect(0)
  }

  @Test(
    "Two disks of one name, and one disk under two names, are refused",
    arguments: [
      (["--disk", "a=FOLDER/disk.raw", "--disk", "a=FOLDER/other"], "two disks are named a"),
      (["--disk", "a=FOLDER/disk.raw"], "disks os and a are the same device"),
      (["--disk", "a=FOLDER/link"], "disks os and a are the same device"),
      (["--disk", "a=FOLDER/hard"], "disks os and a are the same device"),
    ])
  func twins(words: [String], says: String) throws {
    try expectRefused(["web"] + words, 2, [says]) { shop in
      try shop.image("other", 4096)
      try Shell.run("ln", "-s", shop.file("disk.raw"), shop.file("link"))
      try Shell.run("ln", shop.file("disk.raw"), shop.file("hard"))
    }
  }

  @Test(
    "One device under two names is refused, also through a symbolic link",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func twinDevices() throws {
    let shop = try Workshop()
    let device = try LoopDevice(size: 1 << 20, in: shop.folder)
    try Shell.run("ln", "-s", device.path, shop.file("link"))
    try shop.strobe(
      "snapshot", "web", "--disk", "a=\(device.path)", "--disk", "b=\(shop.file("link"))"
    )
    .expect(2, says: "disks a and b are the same device", "name each device once")
    withExtendedLifetime(device) {}
  }

  @Test(
    "Names that would be trouble are refused with what is wrong",
    arguments: [
      ("a/b", "contains '/'"), ("..", "directory's own"), (".", "directory's own"),
      (".hidden", "begins with '.'"),
      ("a\u{1B}[31m", "control character"), ("a\nb", "control character"), ("a@b", "contains '@'"),
      ("a:b", "contains ':'"), (" a", "blank"), (String(repeating: "a", count: 129), "129 bytes"),
      (String(repeating: "ä", count: 65), "130 bytes"), ("a\u{202E}b", "control character"),
    ])
  func names(name: String, says: String) throws {
    try expectRefused([name, "--disk", "os=FOLDER/disk.raw"], 2, ["collection name", says])
    let disk = try Workshop()
    let result = try disk.strobe("snapshot", "web", "--disk", "\(name)=/dev/null")
    result.expect(2, says: "disk name", says)
    #expect(!result.errors.contains("\u{1B}"))
    #expect(try Shell.run("ls", disk.strobe.repository + "/collections") == "")
  }

  @Test(
    "Empty names, and disks without a path, are wrong usage",
    arguments: [
      ["", "--disk", "os=FOLDER/disk.raw"], ["web", "--disk", "=FOLDER/disk.raw"],
      ["web", "--disk", "os="],
      ["web", "--disk", "os"], ["web", "--disk", ""], ["x"],
    ])
  func emptyNames(words: [String]) throws { try expectRefused(words, 2, ["; "]) }

  @Test(
    "The longest name and one of many alphabets work",
    arguments: [
      String(repeating: "a", count: 128), "Datenbank-Größe 1", "虚拟机", "100%",
    ])
  func goodNames(name: String) throws {
    let shop = try Workshop(seed: 14)
    let disk = try shop.image("disk.raw", 65_536)
    try shop.strobe("snapshot", name, "--disk", "\(name)=\(disk)").expect(0)
    try shop.strobe("snapshot", name).expect(0)
    try shop.strobe("list", name).expect(0).prints(name)
    try shop.strobe("restore", "\(name)@latest", "--disk", "\(name)=\(shop.file("target"))").expect(
      0)
    expectSame(shop.file("target"), disk)
    try shop.strobe("verify", name).expect(0)
  }

  @Test(
    "Chunk sizes that can't be are refused",
    arguments: [
      "0", "1", "2048", "5000", "3KiB", "8MiB", "=-4096", "abc", "", "1e9", "99999999999999999999",
      "64KiBs",
    ])
  func chunkSizes(size: String) throws {
    let option = size.hasPrefix("=") ? ["--chunk-size\(size)"] : ["--chunk-size", size]
    try expectRefused(["new", "--disk", "os=FOLDER/disk.raw"] + option, 2, ["chunk", "; "])
    let folder = TemporaryDirectory()
    try Strobe(repository: folder.file("repository")).run(["init"] + option).expect(2)
    #expect(try namesInDirectory(folder.path) == [])
  }

  @Test("The chunk size of a collection doesn't change")
  func fixedChunkSize() throws {
    try expectRefused(
      ["web", "--chunk-size", "4KiB"], 2,
      ["collection web has chunks of 65536 bytes", "another collection"])
  }

  @Test(
    "A read error in the middle of a disk abandons the point and names the byte",
    .enabled(
      if: Machine.hasLoopDevices && Machine.has("mkfs.btrfs"), "needs loop devices and Btrfs"))
  func readError() throws {
    let shop = try Workshop(seed: 15)
    let good = try shop.image("good.raw", 2 << 20)
    let device = try LoopDevice(size: 128 << 20, in: shop.folder)
    let (bad, mark) = (2 << 20, Array("strobe-test: the byte that goes bad".utf8))
    try withMounted("btrfs", device, in: shop.folder, make: true) { mount in
      try Shell.run("touch", mount + "/disk.raw")
      try shop.write(shop.bytes(4 << 20), to: mount + "/disk.raw")
      try shop.write(mark, to: mount + "/disk.raw", at: bad)
      try shop.snapshot("--disk", "good=\(good)", "--disk", "bad=\(mount)/disk.raw")
    }
    try corrupt(shop, device, mark)
    let before = try shop.objects()
    try shop.write(shop.bytes(1 << 20), to: good)
    try withMounted("btrfs", device, in: shop.folder) { mount in
      try shop.strobe("snapshot", "web", "--disk", "bad=\(mount)/disk.raw", "--same-disk", "bad")
        .expect(
          1, says: "\(mount)/disk.raw: read error at byte \(bad): Input/output error", "dmesg")
    }
    // What was stored of the other disk stays for the next run; nothing names it.
    let left = try shop.objects().subtracting(before)
    #expect(left.allSatisfy { $0.contains("/segments/") })
    try shop.expectWhole()
    try shop.snapshot("--forget-disk", "bad")
    try shop.expectWhole()
  }

  /// Changes a byte of the device where `content` begins.
  private func corrupt(_ shop: Workshop, _ device: LoopDevice, _ content: [UInt8]) throws {
    let words = [
      "--byte-offset", "--only-matching", "--text", String(decoding: content, as: UTF8.self),
    ]
    let found = try Shell.capture(["grep"] + words + [device.backing]).output
    let offset = try #require(Int(found.prefix { $0 != ":" }))
    try shop.write([content[0] ^ 1], to: device.path, at: offset)
    try Shell.run("blockdev", "--flushbufs", device.path)
  }
}
