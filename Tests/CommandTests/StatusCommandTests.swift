import Glibc
import Platform
import TestSupport
import Testing

@Suite("status")
struct StatusCommandTests {
  private static let size = 48 << 20

  private func shopWithPoint(seed: UInt64) throws -> (shop: Workshop, id: String) {
    let shop = try Workshop(seed: seed)
    let disk = try shop.image("disk.raw", Self.size)
    let id = try #require(try shop.snapshot("--disk", "os=\(disk)")["id"].text)
    try shop.write(shop.bytes(Self.size), to: disk)
    return (shop, id)
  }

  private func status(_ shop: Workshop) throws -> JSON {
    try shop.strobe("status", "--json").expect(0).json()
  }

  /// UTC to the second, as RFC 3339 has it.
  private func now() throws -> String {
    try Shell.run("date", "-u", "+%Y-%m-%dT%H:%M:%S").filter { !$0.isWhitespace }
  }

  /// Checks that nobody is at work, and that nothing is left.
  private func expectIdle(
    _ shop: Workshop, at location: SourceLocation = #_sourceLocation
  ) throws {
    try shop.strobe("status").expect(0, at: location)
      .prints("Nobody works with the repository.\n", at: location)
    let json = try status(shop)
    #expect(json.keys == ["repository", "working", "reading", "left"], sourceLocation: location)
    for key in ["working", "reading", "left"] {
      #expect(json[key].list.isEmpty, sourceLocation: location)
    }
    #expect(try shop.strobe("status", "--quiet").expect(0, at: location).output == "")
  }

  @Test("A running snapshot is shown with its process, its parent with its reader")
  func snapshot() throws {
    let (shop, id) = try shopWithPoint(seed: 100)
    try expectIdle(shop)
    let before = try now()
    let process = try shop.startAndStop(["snapshot", "web", "--workers", "1"])
    let json = try status(shop)
    let working = json["working"].list
    #expect(working.count == 2)
    #expect(working.last?["lock"].text == "writer-web")
    #expect(working.first?["lock"].text?.hasPrefix("pass-") == true)
    let host = try Shell.run("uname", "-n").filter { !$0.isWhitespace }
    for work in working {
      #expect(work["activity"].text == "snapshot" && work["collection"].text == "web")
      #expect(work["process"].number == Int(process.id) && work["host"].text == host)
      let since = try #require(work["since"].text?.prefix(19))
      #expect(try since >= before && since <= now())
    }
    #expect(json["reading"].list.count == 1)
    let reader = json["reading"][0]
    #expect(reader["point"].text == id && reader["collection"].text == "web")
    #expect(reader["process"].number == Int(process.id) && reader["program"].text == "strobe")
    #expect(reader["command"].text?.hasSuffix("strobe snapshot web --workers 1") == true)
    #expect(reader["isDeleting"].flag == false)
    #expect(json["left"].list.isEmpty)
    let text = try shop.strobe("status").expect(0)
    text.prints(
      "snapshot  web", "\(process.id) on \(host)", "writer-web", "reads", "web@\(id.prefix(12))")
    process.signal(SIGCONT)
    #expect(process.wait() == 0)
    try expectIdle(shop)
  }

  @Test("Restores, and others that hold points, are shown, several of one point too")
  func readers() throws {
    let (shop, id) = try shopWithPoint(seed: 101)
    let words = ["restore", "web@latest", "--workers", "1", "--disk"]
    let first = try shop.startAndStop(words + ["os=\(shop.file("target"))"])
    let second = try shop.startAndStop(words + ["os=\(shop.file("other"))"])
    let json = try status(shop)
    #expect(json["working"].list.isEmpty && json["left"].list.isEmpty)
    let readers = json["reading"].list
    #expect(Set(readers.map { $0["process"].number }) == [Int(first.id), Int(second.id)])
    #expect(readers.count == 2 && readers.allSatisfy { $0["point"].text == id })
    for reader in readers {
      #expect(reader["command"].text?.contains("strobe restore web@latest") == true)
    }
    first.signal(SIGKILL)
    first.wait()
    try shop.strobe("status").expect(0).prints("reads", "\(second.id)")
    #expect(try status(shop)["reading"].list.count == 1)
    second.signal(SIGCONT)
    #expect(second.wait() == 0)
    try expectIdle(shop)
  }

  @Test("What a killed snapshot leaves is told, needs no person, and is gone after the next one")
  func leftovers() throws {
    let (shop, _) = try shopWithPoint(seed: 102)
    let process = try shop.startAndStop(["snapshot", "web", "--workers", "1"])
    process.signal(SIGKILL)
    process.wait()
    let json = try status(shop)
    #expect(json["working"].list.isEmpty && json["reading"].list.isEmpty)
    #expect(json["left"].list.count == 2)
    for left in json["left"].list {
      #expect(left["cleanedUpBy"].text == "snapshot")
      #expect(left["note"].text?.hasPrefix("snapshot of web (process \(process.id)") == true)
    }
    try shop.strobe("status").expect(0).prints(
      "Nobody works",
      "writer-web: left by a pass that was killed; the next snapshot cleans up (snap")
    #expect(try shop.strobe("status", "--help").output.contains("No lock ever needs a person"))
    try shop.snapshot()
    try expectIdle(shop)
    try shop.expectWhole()
  }

  @Test("Locks of others, and notes that are none, are shown as they stand")
  func foreignNotes() throws {
    let (shop, _) = try shopWithPoint(seed: 103)
    let lock = shop.strobe.repository + "/locks/gc"
    let marker = shop.file("held")
    try Shell.run("mkdir", "-p", shop.strobe.repository + "/locks")
    let line =
      "exec 9>\"$1\"; flock 9 && printf 'gc\\033[2J by hand' >&9 && : >\"$2\"; exec sleep 1000"
    let holder = try RunningProcess(["sh", "-c", line, "sh", lock, marker])
    try waitUntil("held") { try FileFacts(path: marker) != nil }
    let work = try status(shop)["working"][0]
    #expect(work["lock"].text == "gc" && work["activity"].text == "gc\u{1B}[2J by hand")
    #expect(work["process"].number == nil && work["since"].text == nil)
    let shown = try shop.strobe("status").expect(0).prints("gc\\u{1b}[2J by hand")
    #expect(!shown.output.contains("\u{1B}"))
    holder.signal(SIGKILL)
    holder.wait()
    try shop.strobe("status").expect(0).prints("gc: left by a gc that was killed; the next gc")
    try shop.strobe("gc").expect(0)
    try expectIdle(shop)
  }

  @Test("Status beside snapshots and deletions that come and go never fails and disturbs nobody")
  func busy() throws {
    let shop = try Workshop(seed: 104)
    try shop.image("disk.raw", 1 << 20)
    try shop.strobe("snapshot", "web", "--disk", "os=\(shop.file("disk.raw"))").expect(0)
    let strobe = shop.strobe
    let other = Busy { _ in
      let result = try strobe("status", "--json")
      guard result.status == 0 else { throw Shell.Failure(description: result.errors) }
    }
    for round in 0..<12 {
      try shop.write(shop.bytes(4096), to: shop.file("disk.raw"), at: round * 65_536)
      try shop.strobe("snapshot", "web").expect(0)
      try shop.strobe("prune", "web", "--keep-last", "2").expect(0)
      try shop.strobe("gc").expect(0)
    }
    let count = other.count
    try waitUntil("another status") { other.count > count + 1 }
    other.end()
    try expectIdle(shop)
  }
}
