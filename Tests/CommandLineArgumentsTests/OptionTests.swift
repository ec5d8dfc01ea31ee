import CommandLineArguments
import Testing

@Suite("Options")
struct OptionTests {
  @Test("A flag is false unless given, and may be given twice")
  func flags() throws {
    #expect(try Sample.values("list")[Sample.json] == false)
    #expect(try Sample.values("list", "--json")[Sample.json])
    #expect(try Sample.values("list", "--json", "-q", "--json", "-q")[Sample.quiet])
  }

  @Test(
    "An option takes its value from the next word or from behind an equals sign",
    arguments: [
      ["--repository", "/backup"], ["--repository=/backup"], ["-r", "/backup"], ["-r/backup"],
      ["-r=/backup"], ["-qr", "/backup"], ["-qr/backup"],
    ])
  func valueForms(words: [String]) throws {
    for line in [words + ["list"], ["list"] + words] {
      guard case .command(_, let values) = try Sample.strobe.parse(line) else {
        throw NotACommand()
      }
      #expect(values[Sample.repository] == "/backup")
    }
  }

  @Test("A repeated option keeps its values in their order")
  func repeated() throws {
    let values = try Sample.values("snapshot", "web", "--disk", "a=1", "-db=2", "--disk=c==3")
    #expect(values[Sample.disk] == ["a=1", "b=2", "c==3"])
    #expect(try Sample.values("snapshot", "web")[Sample.disk] == [])
  }

  @Test(
    "A value that begins with a dash is accepted behind an equals sign, and a lone dash anywhere")
  func dashes() throws {
    #expect(try Sample.values("list", "--repository=-x")[Sample.repository] == "-x")
    #expect(try Sample.values("list", "--repository=--json")[Sample.repository] == "--json")
    #expect(try Sample.values("list", "-r-x")[Sample.repository] == "-x")
    #expect(try Sample.values("list", "--repository", "-")[Sample.repository] == "-")
    #expect(try Sample.values("list", "--repository==")[Sample.repository] == "=")
  }

  @Test("The command line comes before the environment, and that before the default")
  func fallbacks() throws {
    let set = ["STROBE_MAX_FREEZE": "5s"]
    func maxFreeze(_ words: String..., environment: [String: String]) throws -> String? {
      let invocation = try Sample.strobe.parse(
        ["snapshot", "web"] + words, environment: environment)
      guard case .command(_, let values) = invocation else { throw NotACommand() }
      return values[Sample.maxFreeze]
    }
    #expect(try maxFreeze("--max-freeze=1s", environment: set) == "1s")
    #expect(try maxFreeze(environment: set) == "5s")
    #expect(try maxFreeze(environment: ["STROBE_MAX_FREEZE": ""]) == "10s")
    #expect(try maxFreeze(environment: [:]) == "10s")
    #expect(try Sample.values("list")[Sample.repository] == nil)
  }

  @Test("Only the command line counts as given")
  func isGiven() throws {
    let environment = ["STROBE_REPOSITORY": "/backup"]
    let implicit = try Sample.values("snapshot", "web", environment: environment)
    #expect(!implicit.isGiven(Sample.chunkSize))
    #expect(!implicit.isGiven(Sample.repository))
    #expect(!implicit.isGiven(Sample.disk))
    let explicit = try Sample.values("snapshot", "web", "--chunk-size", "64KiB", "-d", "a=b")
    #expect(explicit.isGiven(Sample.chunkSize))
    #expect(explicit.isGiven(Sample.disk))
  }

  @Test("Common options may stand before and after the command's name")
  func commonOptions() throws {
    let values = try Sample.values("--json", "-r", "/backup", "list", "-q", "web")
    #expect(values[Sample.json] && values[Sample.quiet])
    #expect(values[Sample.repository] == "/backup")
    #expect(values[Sample.listed] == "web")
  }
}

@Suite("Wrong options")
struct WrongOptionTests {
  @Test("A missing value is an error that says how to write one that begins with a dash")
  func missingValue() {
    #expect(
      Sample.error("snapshot", "web", "--chunk-size")
        == "--chunk-size needs a value, SIZE; see 'strobe snapshot --help'")
    #expect(
      Sample.error("snapshot", "--disk", "--json")
        == "--disk needs a value, NAME=PATH; "
        + "a value that begins with '-' is written --disk=NAME=PATH")
    #expect(Sample.error("list", "-r", "--").hasPrefix("--repository needs a value, DIR; "))
  }

  @Test("An empty value is an error", arguments: [["-r", ""], ["--repository="], ["-r="]])
  func emptyValue(words: [String]) {
    let expected = UsageError(
      "the value of --repository DIR is empty", advice: "see 'strobe list --help'")
    #expect(throws: expected) { try Sample.strobe.parse(["list"] + words) }
  }

  @Test("A second value of an option that isn't repeatable is an error")
  func duplicate() {
    let expected = "--repository can be given only once; see 'strobe list --help'"
    #expect(Sample.error("list", "-r", "a", "--repository=b") == expected)
    #expect(Sample.error("-r", "a", "list", "-r", "a") == expected)
  }

  @Test("A flag with a value is an error")
  func flagWithValue() {
    #expect(
      Sample.error("list", "--json=yes")
        == "--json takes no value, but was given 'yes'; see 'strobe list --help'")
    #expect(
      Sample.error("list", "-q=")
        == "--quiet takes no value, but was given ''; see 'strobe list --help'"
    )
  }

  @Test("An unknown option is an error that suggests the nearest ones")
  func unknown() {
    #expect(
      Sample.error("snapshot", "--chunksize=4K")
        == "unknown option '--chunksize'; "
        + "did you mean '--chunk-size'? (see 'strobe snapshot --help')")
    #expect(
      Sample.error("snapshot", "--wibble")
        == "unknown option '--wibble'; see 'strobe snapshot --help'")
    #expect(Sample.error("list", "-x") == "unknown option '-x'; see 'strobe list --help'")
    #expect(Sample.error("list", "-qx") == "unknown option '-x'; see 'strobe list --help'")
    #expect(
      Sample.error("--jsn")
        == "unknown option '--jsn'; did you mean '--json'? (see 'strobe --help')")
  }

  @Test("A long name behind one dash is not taken for short options")
  func longNameBehindOneDash() {
    #expect(
      Sample.error("list", "-repository=/x")
        == "unknown option '-repository'; did you mean '--repository'? (see 'strobe list --help')")
  }

  @Test("An option of a command that stands before it is told its place")
  func commandOptionBeforeCommand() {
    #expect(
      Sample.error("--disk", "a=b", "snapshot", "web")
        == "option '--disk' goes after the command's name; see 'strobe --help'")
  }

  @Test("The version is asked of the program, not of a command")
  func versionOfCommand() {
    #expect(
      Sample.error("list", "--version") == "unknown option '--version'; see 'strobe list --help'")
  }

  @Test("Control characters are escaped, so that an error stays one line")
  func controlCharacters() {
    #expect(
      Sample.error("a\nb\u{1B}[31m")
        == #"unknown command 'a\nb\u{1B}[31m'; see 'strobe --help'"#)
  }

  @Test("The first of several mistakes is reported")
  func firstMistake() {
    #expect(Sample.error("list", "--one", "--two").hasPrefix("unknown option '--one'"))
    #expect(Sample.error("--one", "lost").hasPrefix("unknown option '--one'"))
  }
}
