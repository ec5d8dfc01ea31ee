extension ArgumentScanner {
  /// What the scanned command line asks for, or the first thing that is wrong with it.
  func invocation(
    environment: [String: String], width: Int
  ) throws(UsageError) -> Invocation {
    if wantsHelp { return .help(program.help(for: command, width: width)) }
    if let firstError { throw firstError }
    if isGiven(.version) { return .version("\(program.name) \(program.version)") }
    guard let command else { return .noCommand(help: program.help(width: width)) }

    let values = ParsedValues(
      options: optionValues(of: command, environment: environment),
      arguments: try argumentValues(of: command), helpAdvice: helpAdvice)
    guard command.name == CommandDeclaration.help.name else {
      return .command(name: command.name, values: values)
    }
    return .help(try helpText(about: values[OptionalArgument.helpTopic], width: width))
  }

  private func helpText(about topic: String?, width: Int) throws(UsageError) -> String {
    guard let topic else { return program.help(width: width) }
    guard let command = program.command(named: topic) else { throw unknownCommand(topic) }
    return program.help(for: command, width: width)
  }

  private func optionValues(
    of command: CommandDeclaration, environment: [String: String]
  ) -> [String: ParsedValues.OptionValue] {
    var values: [String: ParsedValues.OptionValue] = [:]
    for option in program.options(of: command).definitions {
      values[option.name] = value(of: option, environment: environment)
    }
    return values
  }

  /// The command line comes before the environment, and that before the default.
  private func value(
    of option: OptionDefinition, environment: [String: String]
  ) -> ParsedValues.OptionValue {
    if let texts = values(of: option) { return .init(texts: texts, source: .commandLine) }
    if let variable = option.environmentVariable, let text = environment[variable], !text.isEmpty {
      return .init(texts: [text], source: .environment(variable))
    }
    if let text = option.defaultValue { return .init(texts: [text], source: .defaultValue) }
    return .init(texts: [], source: .nowhere)
  }

  private func argumentValues(
    of command: CommandDeclaration
  ) throws(UsageError) -> [String: [String]] {
    var values: [String: [String]] = [:]
    var rest = positionals[...]
    for argument in command.arguments {
      let taken = argument.isRepeating ? rest : rest.prefix(1)
      guard taken.count >= argument.minimumCount else {
        throw error("missing argument \(argument.name)")
      }
      guard taken.allSatisfy({ !$0.isEmpty }) else {
        throw error("the argument \(argument.name) is empty")
      }
      values[argument.name] = Array(taken)
      rest = rest.dropFirst(taken.count)
    }
    if let extra = rest.first { throw error("unexpected argument \(quoted(extra))") }
    return values
  }
}
