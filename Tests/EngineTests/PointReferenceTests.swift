import Engine
import TestSupport
import Testing

@Suite("A restore point as a person writes it")
struct PointReferenceTests {
  @Test(
    "What it may look like",
    arguments: [
      ("web@latest", PointReference.Selector.latest), ("web@-3", .before(3)),
      ("web@-0", .before(0)),
      ("web@3f9a", .prefix("3f9a")), ("web@3F9A", .prefix("3f9a")),
      ("web@2026-11-21", .time(Timestamp("2026-11-21T00:00:00Z")!)),
      ("web@2026-11-21T08:15Z", .time(Timestamp("2026-11-21T08:15:00Z")!)),
      ("web@2026-11-21T08:15:30+02:00", .time(Timestamp("2026-11-21T06:15:30Z")!)),
    ]) func valid(text: String, selector: PointReference.Selector) throws
  {
    let reference = try PointReference(text)
    #expect(reference.collection == "web")
    #expect(reference.selector == selector)
  }

  @Test(
    "What it may not look like",
    arguments: [
      "web", "", "@latest", "web@", "web@newest", "web@--1", "web@-1x", "../web@latest",
      "we/b@latest",
      "web@2026-13-01", "web@0123456789abcdef012345678", "web@latest@latest",
      "web@-99999999999999999999",
    ]) func invalid(text: String)
  {
    #expect(throws: StrobeError.self) { try PointReference(text) }
  }

  @Test("Looked up in a collection") func lookup() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let engine = try SnapshotEngine.create(at: folder.file("repository"))
    let disk = try DiskModel(folder.file("disk"), size: 4096)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    let points = try (0..<4).map { _ in try engine.snapshot("web", options).point }
    func find(_ text: String) throws -> String { try engine.resolve(PointReference("web@" + text)) }
    #expect(try find("latest") == points[3].id)
    #expect(try find("-0") == points[3].id)
    #expect(try find("-3") == points[0].id)
    #expect(try find(points[1].id) == points[1].id)
    #expect(try find(points[2].created.description) == points[2].id)
    #expect(try find("2199-01-01") == points[3].id)
    let tooFar = #expect(throws: StrobeError.self) { try find("-4") }
    #expect(tooFar?.advice?.contains("web@-3") == true)
    let tooEarly = #expect(throws: StrobeError.self) { try find("1999-01-01") }
    #expect(tooEarly?.reason == .notFound)
    let id = points[1].id
    let wrong = String(id.dropLast()) + (id.hasSuffix("0") ? "1" : "0")
    let unknown = #expect(throws: StrobeError.self) { try find(wrong) }
    #expect(unknown?.advice?.contains(String(id.prefix(12))) == true)
    let other = #expect(throws: StrobeError.self) {
      try engine.resolve(PointReference("wbe@latest"))
    }
    #expect(other?.advice?.contains("web") == true)
  }
}
