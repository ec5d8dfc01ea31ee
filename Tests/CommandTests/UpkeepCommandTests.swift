import Platform
import TestSupport
import Testing

/// usage, gc, verify, heal and damaged restores as an administrator meets them.
@Suite("Upkeep")
struct UpkeepCommandTests {
  /// One disk of 16 chunks, `count` points, each with one chunk more that changed.
  private func shop(_ count: Int) throws -> (Workshop, disk: String) {
    let shop = try Workshop(seed: 70)
    let disk = try shop.image("os.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    for round in 1..<count {
      try shop.write(shop.bytes(65_536), to: disk, at: round * 65_536)
      try shop.snapshot()
    }
    return (shop, disk)
  }

  private func segment(_ shop: Workshop, _ point: Int) throws -> String {
    let id = shop.kept[point].point.dropFirst(4)
    return try #require(
      try shop.objects().first { $0.contains("/segments/\(id.prefix(2))/\(id)") })
  }

  private func damage(_ shop: Workshop, _ point: Int, at offset: Int) throws {
    try shop.write([0xFF, 0, 0xFF, 0], to: segment(shop, point), at: offset)
  }

  @Test("usage says what deleting a point frees, and gc then frees it") func usage() throws {
    let (shop, _) = try shop(4)
    let report = try shop.strobe("usage", "--json").expect(0).json()
    let points = report["collections"][0]["points"].list
    #expect(points.count == 4)
    // The chunk that the third point overwrote again is nobody else's; its layer is the first point's own.
    let own = points.map { $0["ownBytes"].number! }
    #expect(own[0] >= 65_536 && own[1] < 65_536 && own[3] >= 65_536)
    #expect(report["collections"][0]["deadBytes"].number == 0)
    let before = try Shell.run("du", "-sk", shop.strobe.repository + "/segments")
    try shop.strobe("delete", shop.kept[0].point).expect(0)
    let dead = try shop.strobe("usage", "web", "--json").expect(0).json()
    #expect(dead["collections"][0]["deadBytes"].number! >= 65_536 - 4096)
    let planned = try shop.strobe("gc", "--dry-run", "--json").expect(0).json()
    let done = try shop.strobe("gc", "--json").expect(0).json()
    #expect(planned["bytes"].number == done["bytes"].number)
    #expect(done["partBytes"].number! >= 65_536 - 4096)
    let after = try Shell.run("du", "-sk", shop.strobe.repository + "/segments")
    func size(_ text: String) -> Int { Int(text.split(separator: "\t")[0])! }
    #expect(size(before) - size(after) >= 60)
    try shop.strobe("usage").expect(0).expectOutput("needed", "FREES")
    try shop.strobe("gc").expect(0).expectOutput("Freed 0 B")
    try shop.strobe("usage", "nobody").expect(1, says: "there is no collection 'nobody'")
    try shop.strobe("gc", "--max-unused", "half").expect(2, says: "is no share")
    for kept in shop.kept.dropFirst() {
      let target = shop.file("target")
      try shop.strobe("restore", kept.point, "--disk", "os=\(target)").expect(0)
      expectSame(target, kept.copy)
      try removeFile(target)
    }
  }

  @Test("A damaged point restores with --allow-damaged: zeros there, the bytes listed, status 3")
  func allowDamaged() throws {
    let (shop, _) = try shop(2)
    // The third and fourth record of the first pass; random chunks are stored as they are.
    try damage(shop, 0, at: 64 + 2 * 65_584 + 500)
    try damage(shop, 0, at: 64 + 3 * 65_584 + 500)
    let target = shop.file("target")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(
      1, says: "--allow-damaged", "strobe verify")
    let result = try shop.strobe(
      "restore", "web@latest", "--disk", "os=\(target)", "--allow-damaged", "--overwrite", "--json")
    result.expect(3, says: "bytes 131072 to 262143 are zeros")
    let ranges = try result.json()["disks"][0]["damagedRanges"].list
    #expect(ranges.map { $0["offset"].number! } == [131_072])
    #expect(ranges.map { $0["length"].number! } == [131_072])
    let copy = shop.file("expected")
    try Shell.run("cp", shop.kept[1].copy, copy)
    try shop.write([UInt8](repeating: 0, count: 131_072), to: copy, at: 131_072)
    expectSame(target, copy)
  }

  @Test("A damaged map of a layer leaves zeros for what it may have held")
  func damagedLayer() throws {
    let (shop, _) = try shop(2)
    let id = shop.kept[1].point.dropFirst(4)
    let layer = try #require(
      try shop.objects().first { $0.contains("/layers/\(id.prefix(2))/\(id)") })
    try shop.write([0x55], to: layer, at: 150)
    let device = try LoopDevice(size: 1 << 20, in: shop.folder)
    try shop.write(shop.bytes(1 << 20), to: device.path)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(device.path)").expect(1)
    try shop.strobe(
      "restore", "web@latest", "--disk", "os=\(device.path)", "--allow-damaged"
    ).expect(3, says: "bytes 0 to 1048575 are zeros")
    try Shell.run("cmp", "-n", "1048576", device.path, "/dev/zero")
  }

  @Test("Damage is healed by the next snapshot, or from another repository") func healing() throws {
    let (shop, _) = try shop(2)
    try Shell.run("cp", "-r", shop.strobe.repository, shop.file("copy"))
    try damage(shop, 0, at: 64 + 65_584 + 500)
    try damage(shop, 0, at: 64 + 5 * 65_584 + 500)
    try shop.strobe("heal").expect(0).expectOutput("No damage is known")
    try shop.strobe("verify", "web").expect(1, says: "web@", "strobe heal")
    // The second chunk was overwritten since; the sixth is on the disk.
    try shop.strobe("snapshot", "web").expect(0).expectOutput(
      "1 damaged chunk of older points healed")
    try shop.strobe("verify").expect(1, says: "bytes 65536 to 131071")
    try shop.strobe("heal").expect(3).expectOutput("0 of 1 damaged chunk healed")
    try shop.strobe("heal", "web", "--from", shop.file("nowhere")).expect(
      1, says: "there is no repository")
    try shop.strobe("heal", "web", "--from", shop.file("copy")).expect(0).expectOutput(
      "1 of 1 damaged chunk healed")
    try shop.strobe("verify").expect(0).expectOutput("everything is as it was stored")
    for kept in shop.kept {
      let target = shop.file("target")
      try shop.strobe("restore", kept.point, "--disk", "os=\(target)").expect(0)
      expectSame(target, kept.copy)
      try removeFile(target)
    }
  }

  @Test(
    "A damaged layer keeps no point as verified, starts a new chain, and comes back from a copy")
  func layerDamage() throws {
    let (shop, _) = try shop(3)
    try shop.strobe("verify").expect(0)
    try Shell.run("cp", "-r", shop.strobe.repository, shop.file("copy"))
    let id = shop.kept[2].point.dropFirst(4)
    let layer = try #require(
      try shop.objects().first { $0.contains("/layers/\(id.prefix(2))/\(id)") })
    try shop.write([0x55], to: layer, at: 150)
    try shop.strobe("verify").expect(1, says: "a damaged layer is got back with")
    let plan = try shop.strobe("prune", "web", "--keep-last", "1", "--dry-run", "--json").expect(0)
      .json()
    let kept = plan["points"].list.map { $0["keptBy"].list.compactMap { $0.text } }
    #expect(kept[1] == ["verified"], "\(kept)")
    #expect(kept[2].contains("verified") == false)
    try shop.strobe("heal").expect(3).expectOutput("0 of 1 damaged layer healed", "--from")
    let point = try shop.strobe("snapshot", "web", "--json")
    #expect(point.status == 0 && point.errors.contains("is damaged"))
    try shop.strobe("restore", "web@latest", "--disk", "os=\(shop.file("new"))").expect(0)
    expectSame(shop.file("new"), shop.file("os.raw"))
    try shop.strobe("heal", "--from", shop.file("copy")).expect(0).expectOutput(
      "1 of 1 damaged layer healed.")
    // Damage that went with its point is not remembered for ever.
    try shop.write([0x55], to: layer, at: 150)
    try shop.strobe("verify").expect(1)
    try shop.strobe("delete", shop.kept[2].point).expect(0)
    try shop.strobe("verify").expect(0)
    try shop.strobe("heal").expect(0).expectOutput("No damage is known")
    shop.forget(shop.kept[2].point)
    try shop.strobe("verify").expect(0)
    for kept in shop.kept {
      let target = shop.file("target")
      try shop.strobe("restore", kept.point, "--disk", "os=\(target)").expect(0)
      expectSame(target, kept.copy)
      try removeFile(target)
    }
  }

  @Test("Beside a document that can't be read nobody is sure which point is the newest")
  func newest()
    throws
  {
    let (shop, _) = try shop(3)
    let id = shop.kept[2].point.dropFirst(4)
    let path = shop.strobe.repository + "/collections/web/\(id).json"
    try shop.write([0x7F], to: path, at: 50)
    let target = shop.file("target")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(
      3, says: "may mean another point")
    expectSame(target, shop.kept[1].copy)
    try shop.strobe("delete", "web@latest").expect(1, says: "may mean another point", "by its id")
    try shop.strobe("delete", "web@\(id)").expect(0)
    try shop.strobe("delete", "web@latest").expect(0)
  }

  @Test("A repository whose collections are hidden is not empty") func hidden() throws {
    let (shop, _) = try shop(1)
    let folder = shop.strobe.repository + "/collections"
    try Shell.run("mv", folder, folder + "-away")
    for words in [
      ["verify"], ["list"], ["gc"], ["usage"], ["restore", "web@latest", "--to", "/x"],
    ] {
      try shop.strobe.run(words).expect(1, says: "No such file or directory")
    }
    try Shell.run("mv", folder + "-away", folder)
    try Shell.run("mv", folder + "/web", shop.file("web"))
    try Shell.run("ln", "-s", "/nonexistent", folder + "/web")
    for words in [["verify"], ["list"], ["gc"], ["usage"]] { try shop.strobe.run(words).expect(1) }
  }

  @Test("A copy by hard links keeps what gc frees") func hardLinks() throws {
    let (shop, _) = try shop(3)
    let copy = shop.file("linked")
    try Shell.run("cp", "-al", shop.strobe.repository, copy)
    try shop.strobe("delete", shop.kept[0].point).expect(0)
    try shop.strobe("gc", "--max-unused", "0").expect(0).expectOutput("written again")
    try shop.strobe("verify", "--repository", copy).expect(0)
    try shop.strobe("verify").expect(0)
  }

  @Test("gc frees a repository that filled its file system") func fullStore() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    try Shell.run("mount", "-t", "tmpfs", "-o", "size=5m", "strobe-test", folder.path)
    defer { unmount(folder.path) }
    let shop = try Workshop(seed: 71, repository: folder.file("repository"))
    let disk = try shop.image("os.raw", 2 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    for _ in 0..<3 {
      try shop.write(shop.bytes(524_288), to: disk, at: 0)
      try shop.snapshot()
    }
    try shop.write(shop.bytes(2 << 20), to: disk)
    try shop.strobe("snapshot", "web").expect(1, says: "No space left")
    _ = try Shell.capture(["dd", "if=/dev/zero", "of=\(folder.file("fill"))", "bs=4k"])
    for _ in 0..<2 { try shop.strobe("delete", "web@-1").expect(0) }
    let result = try shop.strobe("gc", "--drop-unfinished", "--json")
    #expect(result.status == 0, "\(result.errors)")
    #expect(try result.json()["bytes"].number! >= 1_000_000)
    for kept in [shop.kept[0], shop.kept[3]] {
      let target = shop.file("target")
      try shop.strobe("restore", kept.point, "--disk", "os=\(target)").expect(0)
      expectSame(target, kept.copy)
      try removeFile(target)
    }
  }

  @Test("verify in parts goes on where it stopped; bad words are refused") func parts() throws {
    let (shop, _) = try shop(3)
    try shop.strobe("verify", "--max-duration", "0s").expect(2)
    try shop.strobe("verify", "--sample", "0").expect(2, says: "reads nothing")
    try shop.strobe("verify", "--max-duration", "1h").expect(0).expectOutput(
      "everything is as it was")
    try shop.strobe("verify", "--sample", "0.5").expect(0)
    for word in ["1.5", "101%", "x", "nan", "inf"] {
      try shop.strobe("verify", "--sample", word).expect(2, says: "is no share")
    }
    // What was verified is kept by a policy, although newer points exist.
    let newest = shop.kept[2].point
    try shop.write(shop.bytes(4096), to: shop.file("os.raw"))
    try shop.snapshot()
    try shop.snapshot()
    try shop.strobe("prune", "web", "--keep-last", "1").expect(0).expectOutput("verified")
    let left = try shop.strobe("list", "web", "--json").expect(0).json()
    let ids = left["collections"][0]["points"].list.compactMap { $0["id"].text }
    #expect(ids.count == 2 && newest.hasSuffix(ids[0]))
  }

  @Test("verify --against-source tells a disk at rest from one that changed") func source() throws {
    let (shop, disk) = try shop(2)
    try shop.strobe("verify", "web", "--against-source").expect(0).expectOutput("os: 1 MiB of")
    try shop.write([1, 2, 3], to: disk, at: 70_000)
    let result = try shop.strobe("verify", "web", "--against-source", "--json")
    result.expect(1, says: "bytes 65536 to 131071", "written to since the point")
    #expect(try result.json()["isSame"].flag == false)
    try Shell.run("truncate", "-s", "2M", disk)
    try shop.strobe("verify", "web", "--against-source").expect(1, says: "take a new point")
    try shop.strobe("verify", "--against-source").expect(2, says: "COLLECTION")
    try shop.strobe("verify", "web@latest", "--against-source").expect(2, says: "COLLECTION")
  }
}

extension Shell.Result {
  /// Checks what was written to standard output.
  fileprivate func expectOutput(
    _ words: String..., at location: SourceLocation = #_sourceLocation
  ) {
    for word in words { #expect(output.contains(word), sourceLocation: location) }
  }
}
