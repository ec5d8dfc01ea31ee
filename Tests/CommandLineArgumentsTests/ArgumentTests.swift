import CommandLineArguments
import Testing

@Suite("Positional arguments")
struct ArgumentTests {
  @Test("A required argument is read, and missed")
  func required() throws {
    #expect(try Sample.values("snapshot", "web")[Sample.collection] == "web")
    #expect(
      Sample.error("snapshot", "--json")
        == "missing argument COLLECTION; see 'strobe snapshot --help'")
  }

  @Test("An optional argument may be left out")
  func optional() throws {
    #expect(try Sample.values("list", "web")[Sample.listed] == "web")
    #expect(try Sample.values("list")[Sample.listed] == nil)
  }

  @Test("A repeated argument takes all that are left, but no fewer than it needs")
  func repeated() throws {
    #expect(try Sample.values("delete", "a", "b", "c")[Sample.points] == ["a", "b", "c"])
    #expect(Sample.error("delete") == "missing argument POINT; see 'strobe delete --help'")
    let values = try Sample.values("scrub", "web", "a", "b")
    #expect(values[Sample.listed] == "web")
    #expect(values[Sample.paths] == ["a", "b"])
    #expect(try Sample.values("scrub")[Sample.paths] == [])
  }

  @Test("Options may stand between arguments")
  func optionsBetween() throws {
    let values = try Sample.values("delete", "a", "--json", "b", "-r", "/x", "c")
    #expect(values[Sample.points] == ["a", "b", "c"])
  }

  @Test("After two dashes every word is an argument")
  func endOfOptions() throws {
    let values = try Sample.values("delete", "--", "--help", "-x", "--")
    #expect(values[Sample.points] == ["--help", "-x", "--"])
    #expect(try Sample.values("--", "list", "--json")[Sample.listed] == "--json")
  }

  @Test("A lone dash is an argument")
  func loneDash() throws {
    #expect(try Sample.values("list", "-")[Sample.listed] == "-")
  }

  @Test("One argument too many is an error")
  func unexpected() {
    #expect(
      Sample.error("list", "web", "db") == "unexpected argument 'db'; see 'strobe list --help'")
  }

  @Test("An empty argument is an error, since it is an unset variable of the shell")
  func empty() {
    #expect(
      Sample.error("snapshot", "")
        == "the argument COLLECTION is empty; see 'strobe snapshot --help'"
    )
  }
}
