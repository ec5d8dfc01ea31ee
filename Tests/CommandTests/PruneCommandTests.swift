import Glibc
import Platform
import TestSupport
import Testing

@Suite("prune, protect and unprotect")
struct PruneCommandTests {
  private func shopWithPoints(_ count: Int, seed: UInt64, size: Int = 1 << 20) throws -> Workshop {
    let shop = try Workshop(seed: seed)
    let disk = try shop.image("disk.raw", size)
    try shop.snapshot("--disk", "os=\(disk)")
    for round in 1..<count {
      try shop.write(shop.bytes(65_536), to: disk, at: round * 65_536)
      try shop.snapshot()
    }
    return shop
  }

  private func ids(_ shop: Workshop) throws -> [String] {
    try shop.strobe("list", "web", "--json").json()["collections"][0]["points"].list.compactMap {
      $0["id"].text
    }
  }

  private func forget(_ shop: Workshop, _ ids: some Sequence<String>) {
    for id in ids { shop.forget("web@\(id)") }
  }

  @Test("A dry run says for every point what keeps it and removes nothing; then it is done so")
  func table() throws {
    let shop = try shopWithPoints(5, seed: 90)
    let all = try ids(shop)
    let words = ["prune", "web", "--keep-last", "2", "--keep-daily", "1"]
    let dry = try shop.strobe.run(words + ["--dry-run"]).expect(0)
    let lines = dry.output.split(separator: "\n").map(String.init)
    #expect(lines[0].hasPrefix("POINT") && lines[0].hasSuffix("ACTION  KEPT BY"))
    for (index, id) in all.enumerated() {
      #expect(lines[index + 1].hasPrefix("web@\(id.prefix(12))  20"))
      #expect(lines[index + 1].contains("Z  CrashConsistent  "))
    }
    #expect(lines[1...3].allSatisfy { $0.hasSuffix("  remove") })
    #expect(lines[4].hasSuffix("keep    last") && lines[5].hasSuffix("keep    newest, last, daily"))
    #expect(lines[6] == "Would remove 3 points, 2 stay; 'strobe gc' frees the space.")
    #expect(try ids(shop) == all)

    let json = try shop.strobe.run(words + ["--dry-run", "--json"]).expect(0).json()
    #expect(
      json.keys == ["collection", "dryRun", "points", "unreadable", "kept", "removed", "left"])
    #expect(
      json["points"][4].keys == [
        "id", "sequence", "created", "consistency", "action", "keptBy", "timeInDoubt",
      ])
    #expect(json["dryRun"].flag == true && json["removed"].number == 3)
    #expect(json["points"].list.map { $0["id"].text } == all)
    #expect(json["points"][4]["keptBy"].list.map(\.text) == ["newest", "last", "daily"])
    #expect(json["points"][0]["action"].text == "remove")

    try shop.strobe.run(words).expect(0).prints("Removed 3 points, 2 stay; 'strobe gc' frees")
    #expect(try ids(shop) == Array(all.suffix(2)))
    forget(shop, all.prefix(3))
    try shop.strobe.run(words).expect(0).prints("Removed 0 points, 2 stay.")
    try shop.strobe.run(words + ["--quiet"]).expect(0)
    try shop.strobe("gc").expect(0)
    try shop.expectWhole()
  }

  @Test("Every rule is an option; huge numbers and spans keep everything")
  func options() throws {
    let shop = try shopWithPoints(3, seed: 91)
    for option in ["last", "hourly", "daily", "weekly", "monthly", "yearly"] {
      for number in ["9", "9999999999999999999999"] {
        let json = try shop.strobe(
          "prune", "web", "--keep-\(option)", number, "--dry-run", "--json"
        )
        .expect(0).json()
        #expect(json["points"][2]["keptBy"].list.map(\.text) == ["newest", option])
      }
    }
    for span in ["1h", "3d", "2w", "1y", "290y", "99999999999s"] {
      try shop.strobe("prune", "web", "--keep-within", span).expect(0).prints("Removed 0 points")
    }
    usleep(1_100_000)
    try shop.snapshot()
    let json = try shop.strobe("prune", "web", "--keep-within", "1s", "--json").expect(0).json()
    #expect(json["removed"].number == 3)
    #expect(try ids(shop).count == 1)
  }

  @Test("What says nothing sensible is wrong usage, and removes nothing")
  func usage() throws {
    let shop = try shopWithPoints(2, seed: 92)
    try shop.strobe("prune", "web").expect(2, says: "no rule", "--keep-last", "--help")
    try shop.strobe("prune", "web", "--dry-run").expect(2, says: "no rule")
    try shop.strobe("prune", "--keep-last", "1").expect(2, says: "COLLECTION")
    try shop.strobe("prune", "web", "--keep-daily", "0")
      .expect(2, says: "--keep-daily '0' is too small", "the least is 1")
    for wrong in ["-1", "x", "1.5", ""] {
      try shop.strobe("prune", "web", "--keep-last=\(wrong)").expect(2, says: "--keep-last")
    }
    for wrong in ["0s", "5", "1M", "1 d", "99999999999999999999y"] {
      try shop.strobe("prune", "web", "--keep-within", wrong).expect(2, says: "--keep-within")
    }
    try shop.strobe("prune", "wbe", "--keep-last", "1").expect(1, says: "wbe", "there is web")
    #expect(try ids(shop).count == 2)
  }

  @Test("Points that can't be read are named and left, and the rest is pruned")
  func unreadable() throws {
    let shop = try shopWithPoints(4, seed: 93)
    let all = try ids(shop)
    let document = "\(shop.strobe.repository)/collections/web/\(all[1]).json"
    try shop.write([0x20], to: document, at: 40)
    let result = try shop.strobe("prune", "web", "--keep-last", "1")
      .expect(3, says: "warning: left as it is", all[1], "damaged")
    result.prints("keep    it can't be read", "Removed 2 points, 2 stay")
    let json = try shop.strobe("prune", "web", "--keep-last", "1", "--json").expect(3, says: "")
    #expect(try json.json()["unreadable"][0]["id"].text == all[1])
    #expect(try FileFacts(path: document) != nil)
    #expect(try ids(shop) == [all[3]])
  }

  @Test("A point that a restore reads is left, with exit status 3, and goes the next time")
  func held() throws {
    let shop = try Workshop(seed: 94)
    let disk = try shop.image("disk.raw", 48 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    for round in 1...2 {
      try shop.write(shop.bytes(65_536), to: disk, at: round * 65_536)
      try shop.snapshot()
    }
    let all = try ids(shop)
    let restore = try shop.startAndStop([
      "restore", "web@-2", "--workers", "1", "--disk", "os=\(shop.file("target"))",
    ])
    let result = try shop.strobe("prune", "web", "--keep-last", "1")
      .expect(3, says: "web@\(all[0].prefix(12)) was left: another command reads")
    result.prints("held", "Removed 1 point, 2 stay")
    #expect(try ids(shop) == [all[0], all[2]])
    restore.signal(SIGCONT)
    #expect(restore.wait() == 0)
    expectSame(shop.file("target"), shop.kept[0].copy)
    try shop.strobe("prune", "web", "--keep-last", "1").expect(0)
    forget(shop, all.prefix(2))
    try shop.strobe("gc").expect(0)
    try shop.expectWhole()
  }

  @Test("Protected points stay and say why; list and show tell; unprotect lets them go")
  func protection() throws {
    let shop = try shopWithPoints(3, seed: 95)
    let all = try ids(shop)
    let short = all.map { "web@\($0.prefix(12))" }
    try shop.strobe("protect", "web@-2", "web@-1", "--note", "vor dem Umbau").expect(0)
      .prints("\(short[0]) is protected.", "\(short[1]) is protected.")
    try shop.strobe("delete", "web@latest", "web@-2").expect(
      1, says: "\(short[0]) is protected since 20", "(vor dem Umbau)",
      "strobe unprotect \(short[0])")
    #expect(try ids(shop) == all, "nothing is deleted before all is looked at")
    try shop.strobe("prune", "web", "--keep-last", "1").expect(0).prints("keep    protected")

    let lines = try shop.strobe("list").expect(0).output.split(separator: "\n")
    #expect(lines.map { $0.hasSuffix("  protected") } == [false, true, true, false])
    #expect(lines.allSatisfy { !$0.hasSuffix(" ") })
    let list = try shop.strobe("list", "--json").json()["collections"][0]["points"]
    #expect(list.list.map { $0["protected"].flag } == [true, true, false])
    try shop.strobe("show", "web@-1").expect(0).prints("Protected      since 20", ": vor dem Umbau")
    #expect(try !shop.strobe("show", "web@latest").output.contains("Protected"))
    let shown = try shop.strobe("show", "web@-2", "--json").json()
    #expect(shown["protected"].flag == true)
    #expect(shown["protection"]["note"].text == "vor dem Umbau")
    #expect(try shop.strobe("show", "web@latest", "--json").json()["protected"].flag == false)

    let protected = try shop.strobe("protect", "web@-1", "--json").expect(0).json()
    #expect(protected["protected"].list.map(\.text) == ["web@\(all[1])"])
    let freed = try shop.strobe("unprotect", "web@-1", "web@latest", "--json").expect(0).json()
    #expect(freed["unprotected"].list.map(\.text) == ["web@\(all[1])"])
    try shop.strobe("unprotect", "web@-1", "web@-2").expect(0)
      .prints("\(short[1]) was not protected.", "\(short[0]) is not protected any more.")
    try shop.strobe("prune", "web", "--keep-last", "1").expect(0).prints("Removed 2 points")
    try shop.strobe("protect", "web@-7").expect(1, says: "web@-7")
    try shop.strobe("protect").expect(2, says: "POINT")
    try shop.strobe("protect", "web@latest", "--note", String(repeating: "x", count: 5000))
      .expect(2, says: "5000 bytes")
  }

  @Test("A damaged protection protects, and show and list say so")
  func damagedProtection() throws {
    let shop = try shopWithPoints(2, seed: 96)
    let all = try ids(shop)
    try shop.strobe("protect", "web@-1").expect(0)
    let document = "\(shop.strobe.repository)/collections/web/\(all[0]).protected"
    try shop.write([0x20], to: document, at: 20)
    try shop.strobe("delete", "web@-1").expect(1, says: "is protected", "damaged", "unprotect")
    try shop.strobe("prune", "web", "--keep-last", "1").expect(0).prints("keep    protected")
    try shop.strobe("show", "web@-1").expect(0).prints("Protected      by a document that can't")
    try shop.strobe("unprotect", "web@-1").expect(0)
    try shop.strobe("delete", "web@-1").expect(0)
  }
}
