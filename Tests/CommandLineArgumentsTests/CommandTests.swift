import CommandLineArguments
import Testing

@Suite("Commands and requests for help")
struct CommandTests {
  @Test("The command's name is told", arguments: ["list", "scrub"])
  func name(command: String) throws {
    guard case .command(let name, _) = try Sample.parse("--json", command) else {
      throw NotACommand()
    }
    #expect(name == command)
  }

  @Test("An unknown command is an error that suggests the nearest ones")
  func unknown() {
    #expect(
      Sample.error("snapshto", "web")
        == "unknown command 'snapshto'; did you mean 'snapshot'? (see 'strobe --help')")
    #expect(Sample.error("frobnicate") == "unknown command 'frobnicate'; see 'strobe --help'")
    #expect(Sample.error("") == "unknown command ''; see 'strobe --help'")
  }

  @Test(
    "No command at all gives the general help, but not as an answer",
    arguments: [[], ["--json"], ["--"]])
  func noCommand(words: [String]) throws {
    guard case .noCommand(let help) = try Sample.strobe.parse(words) else { throw NotACommand() }
    #expect(help == Sample.strobe.help())
  }

  @Test(
    "The general help can be asked for",
    arguments: [["--help"], ["-h"], ["help"], ["--json", "-h"], ["-qh"], ["--wrong", "--help"]])
  func generalHelp(words: [String]) throws {
    guard case .help(let text) = try Sample.strobe.parse(words) else { throw NotACommand() }
    #expect(text == Sample.strobe.help())
  }

  @Test(
    "The help of a command can be asked for anywhere, and wins over mistakes",
    arguments: [
      ["snapshot", "--help"], ["snapshot", "-h"], ["help", "snapshot"], ["--help", "snapshot"],
      ["snapshot", "web", "-qh"], ["snapshot", "--disk", "--help"],
      ["-r", "list", "-h", "snapshot"],
      ["snapshot", "--wrong", "--help"], ["--wrong", "lost", "snapshot", "--help"],
      ["snapshot", "--help", "--json=yes", "a", "b"],
    ])
  func commandHelp(words: [String]) throws {
    guard case .help(let text) = try Sample.strobe.parse(words) else { throw NotACommand() }
    #expect(text == Sample.strobe.help(for: Sample.snapshot))
  }

  @Test("A value and a word after two dashes are no request for help")
  func noRequest() throws {
    #expect(try Sample.values("list", "--repository=--help")[Sample.repository] == "--help")
    #expect(try Sample.values("list", "--", "-h")[Sample.listed] == "-h")
  }

  @Test("Help about nothing that exists is an error")
  func wrongHelp() {
    let unknown = "unknown command 'lst'; did you mean 'list'? (see 'strobe --help')"
    #expect(Sample.error("help", "lst") == unknown)
    #expect(Sample.error("lst", "--help") == unknown)
    #expect(
      Sample.error("help", "list", "x") == "unexpected argument 'x'; see 'strobe help --help'")
  }

  @Test("Help explains itself")
  func helpOfHelp() throws {
    for words in [["help", "--help"], ["help", "help"]] {
      guard case .help(let text) = try Sample.strobe.parse(words) else { throw NotACommand() }
      #expect(text.hasPrefix("Usage: strobe help [OPTIONS] [COMMAND]\n\nShow help"))
    }
  }

  @Test("The version is the program's name and version", arguments: [[], ["list"]])
  func version(more: [String]) throws {
    guard case .version(let text) = try Sample.strobe.parse(["--version"] + more) else {
      throw NotACommand()
    }
    #expect(text == "strobe 1.2.3")
  }

  @Test("The width reaches the help")
  func width() throws {
    guard case .help(let text) = try Sample.strobe.parse(["list", "-h"], width: 60) else {
      throw NotACommand()
    }
    #expect(text == Sample.strobe.help(for: Sample.list, width: 60))
    #expect(text != Sample.strobe.help(for: Sample.list))
  }
}
