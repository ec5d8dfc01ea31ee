/// A program with commands: `strobe snapshot …`.
package struct ProgramDeclaration: Sendable {
  package let name: String
  package let summary: String
  package let version: String
  /// The declared commands, and `help`.
  package let commands: [CommandDeclaration]
  let discussion: String
  let commonOptions: [OptionDefinition]
  let examples: [Example]
  let exitStatuses: [ExitStatus]

  /// Stops the program where the declarations contradict each other, since that is a mistake in the
  /// source: two options of one name, a required argument after an optional one.
  ///
  /// - Parameters:
  ///   - name: what the user types: `strobe`.
  ///   - summary: one line for the head of the general help.
  ///   - version: what `--version` shows after the name.
  ///   - discussion: paragraphs for the general help.
  ///   - commands: in the order in which the general help lists them; `help` is added.
  ///   - commonOptions: options of every command, which may also stand before its name.
  ///   - examples: command lines for the general help.
  ///   - exitStatuses: also shown by each command that declares none of its own.
  package init(
    name: String, summary: String, version: String, discussion: String = "",
    commands: [CommandDeclaration], commonOptions: [any OptionDeclaration] = [],
    examples: [Example] = [], exitStatuses: [ExitStatus] = []
  ) {
    self.name = name
    self.summary = summary
    self.version = version
    self.discussion = discussion
    self.commands = commands + [.help]
    self.commonOptions = commonOptions.map(\.definition)
    self.examples = examples
    self.exitStatuses = exitStatuses
    requireConsistentDeclarations()
  }

  /// Says what a command line asks for.
  ///
  /// - Parameters:
  ///   - arguments: the words after the program's name.
  ///   - environment: the variables that options may fall back to.
  ///   - width: the number of columns that help is wrapped to.
  package func parse(
    _ arguments: [String], environment: [String: String] = [:], width: Int = 80
  ) throws(UsageError) -> Invocation {
    var scanner = ArgumentScanner(program: self, words: arguments)
    scanner.scan()
    return try scanner.invocation(environment: environment, width: width)
  }

  /// The help page of a command, or of the whole program, without a line feed at its end.
  package func help(for command: CommandDeclaration? = nil, width: Int = 80) -> String {
    let page = HelpPage(program: self, width: width)
    return command.map(page.text(for:)) ?? page.generalText
  }
}

/// What a command line asks for.
///
/// The texts have no line feed at their end.
package enum Invocation: Sendable {
  /// Help was asked for: standard output, status 0.
  case help(String)
  /// The version was asked for: standard output, status 0.
  case version(String)
  /// Nothing was asked for: the general help goes to standard error, status 2.
  case noCommand(help: String)
  case command(name: String, values: ParsedValues)
}

extension ProgramDeclaration {
  func command(named name: String) -> CommandDeclaration? {
    commands.first { $0.name == name }
  }

  /// The options that can be given before a command's name, or after it.
  func options(of command: CommandDeclaration?) -> OptionTable {
    guard let command else {
      return OptionTable(
        definitions: commonOptions + [Flag.help.definition, Flag.version.definition])
    }
    return OptionTable(definitions: command.options + commonOptions + [Flag.help.definition])
  }

  /// The advice that ends most errors: `see 'strobe snapshot --help'`.
  func helpAdvice(for command: CommandDeclaration?) -> String {
    let path = command.map { "\(name) \($0.name)" } ?? name
    return "see '\(path) --help'"
  }
}

extension Flag {
  static let help = Flag("help", short: "h", help: "Show this help")
  static let version = Flag("version", help: "Show the version")
}

extension OptionalArgument {
  static let helpTopic = OptionalArgument("COMMAND", help: "The command to explain")
}

extension CommandDeclaration {
  static let help = CommandDeclaration(
    name: "help", summary: "Show help for the program or one command",
    arguments: [OptionalArgument.helpTopic])
}
