import Platform
import TestSupport
import Testing

/// Each kind of object with one byte flipped. Every byte of every object is flipped in the Engine's
/// tests; here it is about what an administrator reads.
@Suite("Damage")
struct DamageMessageTests {
  /// Two disks, three points; only the second point's change of `os` is to be damaged.
  private func shopWithPoints() throws -> Workshop {
    let shop = try Workshop(seed: 60)
    let (os, data) = (try shop.image("os.raw", 1 << 20), try shop.image("data.raw", 1 << 20))
    try shop.snapshot("--disk", "os=\(os)", "--disk", "data=\(data)")
    for round in 1...2 {
      try shop.write(shop.bytes(65_536), to: os, at: round * 131_072)
      try shop.snapshot()
    }
    return shop
  }

  private func id(_ shop: Workshop, _ point: Int) -> String {
    String(shop.kept[2 * point].point.dropFirst(4))
  }

  /// The path of an object of a point's pass: a layer or a segment, by its number.
  private func object(_ shop: Workshop, _ room: String, _ point: Int) throws -> String {
    let id = id(shop, point)
    return try #require(
      try shop.objects().filter { $0.contains("/\(room)/\(id.prefix(2))/\(id)") }.sorted().first)
  }

  private func flip(_ shop: Workshop, _ path: String, at offset: Int) throws {
    let found = try Shell.run("od", "-An", "-tu1", "-j\(offset)", "-N1", path).filter(\.isNumber)
    try shop.write([UInt8(found)! ^ 0x10], to: path, at: offset)
  }

  /// Restores every kept point: `damaged` ones must fail with `says`, all others work.
  private func expectRestores(
    _ shop: Workshop, failing: [Int], says: String, at location: SourceLocation = #_sourceLocation
  ) throws {
    for (index, kept) in shop.kept.enumerated() {
      let target = shop.file("target")
      let result = try shop.strobe("restore", kept.point, "--disk", "\(kept.disk)=\(target)")
      if failing.contains(index) {
        result.expect(1, says: says, at: location)
        #expect(try FileFacts(path: target) == nil, sourceLocation: location)
      } else {
        result.expect(0, at: location)
        expectSame(target, kept.copy, at: location)
        try removeFile(target)
      }
    }
    #expect(shop.leftovers() == [], sourceLocation: location)
  }

  @Test("A chunk: its disk, bytes, segment and fingerprint are named, and the rest is restored")
  func chunk() throws {
    let shop = try shopWithPoints()
    let segment = try object(shop, "segments", 1)
    try flip(shop, segment, at: 64 + 48 + 1000)
    let name = String(segment.dropFirst(shop.strobe.repository.count + 1))
    try expectRestores(shop, failing: [2, 4], says: "disk os, bytes 131072 to 196607: \(name)")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(shop.file("x"))")
      .expect(1, says: "is damaged: expected", "found", "strobe verify", "other points")
    let point = "web@\(id(shop, 1).prefix(12))"
    let verified = try shop.strobe("verify", "--json")
    verified.expect(
      1, says: "\(point), web@", "disk os, bytes 131072 to 196607", name, "is damaged")
    let damage = try verified.json()["damage"]
    #expect(damage.list.count == 1)
    #expect(damage[0]["offset"].number == 131_072 && damage[0]["length"].number == 65_536)
    try shop.strobe("verify").expect(1).prints("1 damaged")
    try shop.strobe("list").expect(0)
    try shop.strobe("gc").expect(0)
    try shop.snapshot()
  }

  @Test("A segment's header, and a segment that is missing", arguments: [true, false])
  func segment(isMissing: Bool) throws {
    let shop = try shopWithPoints()
    let segment = try object(shop, "segments", 1)
    if isMissing { try Shell.run("rm", segment) } else { try flip(shop, segment, at: 3) }
    let name = String(segment.dropFirst(shop.strobe.repository.count + 1))
    try expectRestores(shop, failing: [2, 4], says: name)
    try shop.strobe("verify").expect(
      1, says: "disk os", name, isMissing ? "is missing" : "is damaged")
    try shop.strobe("list").expect(0)
  }

  @Test(
    "A layer: points that need it name it, gc frees nothing, the next snapshot starts again",
    arguments: [20, 130, -20])
  func layer(place: Int) throws {
    let shop = try shopWithPoints()
    let layer = try object(shop, "layers", 1)
    let size = Int(try Shell.run("stat", "--format=%s", layer).filter(\.isNumber))!
    try flip(shop, layer, at: place < 0 ? size + place : place)
    let name = String(layer.dropFirst(shop.strobe.repository.count + 1))
    try expectRestores(shop, failing: [2, 4], says: name)
    try shop.strobe("verify").expect(1, says: "disk os", name, "is damaged: expected", "found")
    try shop.strobe("list").expect(0)
    let before = try shop.objects()
    let result = try shop.strobe("gc")
    if result.status != 0 {
      result.expect(1, says: "nothing was freed", name, "delete the points")
      #expect(try shop.objects() == before)
    }
    let snapshot = try shop.strobe("snapshot", "web", "--json")
    #expect(snapshot.status == 0)
    let latest = try snapshot.json()
    #expect(latest["disks"][1]["newChainReason"].text == nil, "data is whole")
    try shop.strobe("restore", "web@latest", "--disk", "data=\(shop.file("y"))").expect(0)
    try shop.strobe("delete", "web@-1", "web@-2").expect(0)
  }

  @Test("A point's document: it is named, others are listed and restored, and it can be deleted")
  func document() throws {
    let shop = try shopWithPoints()
    let name = "collections/web/\(id(shop, 1)).json"
    try flip(shop, shop.strobe.repository + "/" + name, at: 40)
    try Shell.run("rm", "-rf", shop.strobe.repository + "/cache")
    let list = try shop.strobe("list")
    list.expect(1, says: name, "is damaged: expected checksum")
    #expect(list.output.split(separator: "\n").count == 3)
    try shop.strobe("verify").expect(1, says: name)
    try shop.strobe("gc").expect(1, says: "nothing was freed", name)
    try expectRestores(shop, failing: [2, 3], says: name)
    let next = try shop.strobe("snapshot", "web")
    #expect(next.status == 0)
    #expect(
      next.errors.contains("warning: \(name)") && next.errors.contains("passed over"),
      "\(next.errors)")
    try shop.strobe("delete", "web@\(id(shop, 1))").expect(0)
    shop.forget("web@\(id(shop, 1))")
    try shop.strobe("gc").expect(0)
    try shop.expectWhole()
  }

  @Test("A collection's record is made again from its newest point, with a warning")
  func record() throws {
    let shop = try shopWithPoints()
    try flip(shop, shop.strobe.repository + "/collections/web/collection.json", at: 40)
    try shop.strobe("verify").expect(1, says: "collections/web/collection.json is damaged")
    try expectRestores(shop, failing: [], says: "")
    let next = try shop.strobe("snapshot", "web")
    #expect(next.status == 0)
    #expect(
      next.errors.contains("collection.json is damaged") && next.errors.contains("was made again"))
    try shop.snapshot()
    try shop.expectWhole()
  }

  @Test("Caches that are damaged or gone change nothing", arguments: [true, false])
  func caches(areGone: Bool) throws {
    let shop = try shopWithPoints()
    let cache = shop.strobe.repository + "/cache/web"
    for name in try namesInDirectory(cache) {
      if areGone {
        try Shell.run("rm", cache + "/" + name)
      } else {
        try flip(shop, cache + "/" + name, at: 50)
      }
    }
    try shop.strobe("list").expect(0)
    #expect(try shop.snapshot()["disks"][0]["changedChunks"].number == 0)
    try shop.expectWhole()
  }
}
