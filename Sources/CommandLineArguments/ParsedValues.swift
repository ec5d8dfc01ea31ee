/// What a command line gave to a command, read with the objects that declared it.
///
/// To read something that the command didn't declare is a mistake in the source, and stops the
/// program.
package struct ParsedValues: Sendable {
  /// Where an option's value came from.
  enum Source: Sendable, Equatable {
    case commandLine
    case environment(String)
    case defaultValue
    case nowhere
  }

  /// The values of one option, none for a flag.
  struct OptionValue: Sendable {
    let texts: [String]
    let source: Source
  }

  private let options: [String: OptionValue]
  private let arguments: [String: [String]]
  private let helpAdvice: String

  init(
    options: [String: OptionValue], arguments: [String: [String]], helpAdvice: String
  ) {
    self.options = options
    self.arguments = arguments
    self.helpAdvice = helpAdvice
  }

  package subscript(flag: Flag) -> Bool { isGiven(flag) }
  package subscript(option: Option) -> String? { value(of: option).texts.first }
  package subscript(option: RepeatedOption) -> [String] { value(of: option).texts }

  package subscript(argument: Argument) -> String { texts(of: argument)[0] }
  package subscript(argument: OptionalArgument) -> String? { texts(of: argument).first }
  package subscript(argument: RepeatedArgument) -> [String] { texts(of: argument) }

  /// Whether the option stood on the command line itself, and not just in the environment or a
  /// default.
  package func isGiven(_ option: some OptionDeclaration) -> Bool {
    value(of: option).source == .commandLine
  }

  private func value(of option: some OptionDeclaration) -> OptionValue {
    guard let value = options[option.definition.name] else {
      preconditionFailure("\(option.definition.spelling) is not declared by the command")
    }
    return value
  }

  private func texts(of argument: some ArgumentDeclaration) -> [String] {
    guard let texts = arguments[argument.definition.name] else {
      preconditionFailure("argument \(argument.definition.name) is not declared by the command")
    }
    return texts
  }
}

// MARK: - Reading values in a format

extension ParsedValues {
  /// The option's value, nil where nothing gives one.
  package func parse<Value>(
    _ option: Option, as format: ValueFormat<Value>
  ) throws(UsageError) -> Value? {
    guard let text = self[option] else { return nil }
    return try format.parse(text, nameInErrors(of: option))
  }

  package func parse<Value>(
    _ option: RepeatedOption, as format: ValueFormat<Value>
  ) throws(UsageError) -> [Value] {
    try parse(self[option], of: option.definition.spelling, as: format)
  }

  package func parse<Value>(
    _ argument: Argument, as format: ValueFormat<Value>
  ) throws(UsageError) -> Value {
    try format.parse(self[argument], argument.definition.name)
  }

  package func parse<Value>(
    _ argument: OptionalArgument, as format: ValueFormat<Value>
  ) throws(UsageError) -> Value? {
    guard let text = self[argument] else { return nil }
    return try format.parse(text, argument.definition.name)
  }

  package func parse<Value>(
    _ argument: RepeatedArgument, as format: ValueFormat<Value>
  ) throws(UsageError) -> [Value] {
    try parse(self[argument], of: argument.definition.name, as: format)
  }

  /// The value of an option that the command can't do without: a default, or an error that says how
  /// to give one.
  package func require(_ option: Option) throws(UsageError) -> String {
    try require(option, as: .text)
  }

  package func require<Value>(
    _ option: Option, as format: ValueFormat<Value>
  ) throws(UsageError) -> Value {
    if let value = try parse(option, as: format) { return value }
    let definition = option.definition
    let variable = definition.environmentVariable.map { "set \($0), or " } ?? ""
    throw UsageError(
      "missing option \(definition.spelling) \(definition.valueName)",
      advice: "\(variable)\(helpAdvice)")
  }

  private func parse<Value>(
    _ texts: [String], of name: String, as format: ValueFormat<Value>
  ) throws(UsageError) -> [Value] {
    var values: [Value] = []
    for text in texts {
      values.append(try format.parse(text, name))
    }
    return values
  }

  /// The option, or the environment variable where that is what has to be corrected.
  private func nameInErrors(of option: Option) -> String {
    guard case .environment(let variable) = value(of: option).source else {
      return option.definition.spelling
    }
    return "$\(variable)"
  }
}
