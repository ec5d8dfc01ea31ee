import Platform
import TestSupport
import Testing

@Suite("Which point is meant")
struct PointReferenceTests {
  private func shopWithPoints(_ count: Int) throws -> Workshop {
    let shop = try Workshop(seed: 40)
    let disk = try shop.image("disk.raw", 65_536)
    for _ in 0..<count {
      try shop.write(shop.bytes(100), to: disk)
      try shop.snapshot("--disk", "os=\(disk)")
    }
    return shop
  }

  @Test("Points are found by latest, -N, the beginning of an id, and a time")
  func found() throws {
    let shop = try shopWithPoints(3)
    let points = try shop.strobe("list", "web", "--json").expect(0).json()["collections"][0][
      "points"
    ].list
    for (index, point) in points.enumerated() {
      let id = try #require(point["id"].text)
      let times = [
        point["created"].text ?? "", "-\(2 - index)", id, String(id.prefix(10)), id.uppercased(),
      ]
      for selector in times + (index == 2 ? ["latest", "2199-01-01T00:00Z"] : []) {
        let shown = try shop.strobe("show", "web@\(selector)", "--json").expect(0).json()
        #expect(shown["id"].text == id, "\(selector)")
      }
    }
  }

  @Test("What isn't there is said with what is near")
  func unknown() throws {
    let shop = try shopWithPoints(2)
    let id = String(shop.kept[1].point.dropFirst(4).prefix(12))
    let typo = String(id.prefix(11)) + (id.last == "0" ? "1" : "0")
    try shop.strobe("show", "web@\(typo)").expect(
      1, says: "web has no restore point \(typo)", "web@\(id)")
    try shop.strobe("show", "web@-2").expect(
      1, says: "no web@-2", "2 restore points", "the oldest is web@-1")
    try shop.strobe("show", "web@1999-01-01T00:00Z").expect(
      1, says: "at or before 1999", "the oldest is of 20")
    try shop.strobe("show", "wbe@latest").expect(
      1, says: "no collection 'wbe'", shop.strobe.repository, "web")
    for command in ["list", "verify"] {
      try shop.strobe(command, "wep").expect(1, says: "'wep'", "web")
    }
    try shop.strobe("delete", "web@latest", "web@-2").expect(1, says: "no web@-2")
    try shop.strobe("diff", "web@-1", "web@latest", "--disk", "so").expect(1, says: "'so'", "os")
    try shop.expectWhole()
  }

  @Test(
    "What can't be a point is wrong usage",
    arguments: [
      "web", "web@", "web@fourteen", "web@-", "web@--1", "web@2026-13-45", "@latest", "../x@latest",
      "a\u{1B}b@latest",
      "web@ffffffffffffffffffffffffffffffff",
    ])
  func malformed(reference: String) throws {
    let shop = try shopWithPoints(1)
    let result = try shop.strobe("show", reference).expect(2, says: "; ")
    #expect(!result.errors.contains("\u{1B}"))
    try shop.strobe("delete", reference).expect(2)
    try shop.expectWhole()
  }

  @Test("A beginning that several ids share is refused with some of them")
  func ambiguous() throws {
    let shop = try Workshop(seed: 41)
    let disk = try shop.image("disk.raw", 512)
    var firsts: [Character: [String]] = [:]
    // Among 17 ids two begin alike.
    while !firsts.values.contains(where: { $0.count > 1 }) {
      let id = try #require(try shop.snapshot("--disk", "os=\(disk)")["id"].text)
      firsts[id.first!, default: []].append(id)
    }
    let (letter, ids) = try #require(firsts.first { $0.value.count > 1 })
    try shop.strobe("show", "web@\(letter)")
      .expect(
        2, says: "web@\(letter) means 2 restore points", "web@\(ids[0].prefix(5))", "more of the id"
      )
    try shop.strobe("delete", "web@\(letter)").expect(2)
    shop.forget("web@")
    try shop.strobe("verify").expect(0)
  }
}
