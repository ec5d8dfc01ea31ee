import Platform
import SnapshotRepository
import Testing

@Suite("Names of collections and disks")
struct NamesTests {
  @Test(
    "that are right",
    arguments: [
      "a", "web", "os-disk", "db_1", "a.b", "web 2", "Büro", "第一", "e\u{301}", "😀", "a..b", "x-",
      "x.", "a,b", "~",
      "100%", "collection.json", String(repeating: "n", count: 128),
    ])
  func right(_ name: String) throws { try Names.check(name, "disk") }

  @Test(
    "that are wrong",
    arguments: [
      "", ".", "..", ".hidden", "-option", "a/b", "/", "a\\b", "web@1", "a=b", "a:b", " a", "a ",
      "a\nb", "a\tb",
      "a\u{0}b", "\u{7F}", "a\u{1B}[31m", "a\u{200B}b", "a\u{202E}b", "a\u{A0}b", "a\u{2028}b",
      "a\u{FFFD}",
      "\u{E000}", "\u{FEFF}a", String(repeating: "n", count: 129),
      String(repeating: "é", count: 65),
    ])
  func wrong(_ name: String) throws {
    let error = #expect(throws: StrobeError.self) { try Names.check(name, "disk") }
    #expect(error?.reason == .usage)
    #expect(error?.message.hasPrefix("disk name ") == true)
    let controls = error?.message.unicodeScalars.filter {
      $0.value < 32 || $0.value == 0x7F || $0.value == 0x202E
    }
    #expect(controls?.isEmpty == true, "a message that a terminal would act on")
  }

  @Test("that are long are cut short in messages")
  func quoted() {
    #expect(Names.quoted("a b") == "'a b'")
    #expect(Names.quoted("a\u{1B}b") == "'a\\u{1b}b'")
    #expect(Names.quoted(String(repeating: "x", count: 500)).count == 163)
  }
}
