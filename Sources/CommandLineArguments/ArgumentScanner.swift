/// Reads a command line from left to right.
///
/// It goes on after the first mistake, which it keeps, because a request for help further right
/// wins over it. A word that begins with `-` is never taken as the value of the word before it; so
/// every `--help` before a `--` is such a request.
struct ArgumentScanner {
  let program: ProgramDeclaration
  private(set) var command: CommandDeclaration?
  /// The positional arguments after the command's name.
  private(set) var positionals: [String] = []
  private(set) var firstError: UsageError?
  private var rest: ArraySlice<String>
  private var optionsEnded = false
  private var sawUnknownCommand = false
  private var given: [String: [String]] = [:]
  private var table: OptionTable

  init(program: ProgramDeclaration, words: [String]) {
    self.program = program
    rest = words[...]
    table = program.options(of: nil)
  }

  mutating func scan() {
    while let word = rest.popFirst() {
      do throws(UsageError) {
        try take(word)
      } catch {
        firstError = firstError ?? error
      }
    }
  }

  /// Whether help was asked for about something that exists.
  var wantsHelp: Bool {
    isGiven(.help) && (command != nil || !sawUnknownCommand)
  }

  func isGiven(_ flag: Flag) -> Bool { given[flag.definition.name] != nil }

  /// The values of an option in the order given, none for a flag; nil when it wasn't given.
  func values(of option: OptionDefinition) -> [String]? { given[option.name] }

  var helpAdvice: String { program.helpAdvice(for: command) }

  private mutating func take(_ word: String) throws(UsageError) {
    if optionsEnded || word == "-" || !word.hasPrefix("-") {
      try takePlain(word)
    } else if word == "--" {
      optionsEnded = true
    } else if word.hasPrefix("--") {
      try takeLong(word)
    } else {
      try takeShort(word)
    }
  }

  private mutating func takePlain(_ word: String) throws(UsageError) {
    guard command == nil else { return positionals.append(word) }
    guard let found = program.command(named: word) else {
      sawUnknownCommand = true
      throw unknownCommand(word)
    }
    command = found
    table = program.options(of: found)
  }
}

// MARK: - Options

extension ArgumentScanner {
  /// Takes `--name`, `--name value` or `--name=value`.
  private mutating func takeLong(_ word: String) throws(UsageError) {
    let (name, value) = splitAtEquals(word.dropFirst(2))
    guard let option = table.long(name) else { throw unknownOption("--\(name)") }
    try record(option, attached: value)
  }

  /// Takes `-q`, `-r value`, `-rvalue` or `-r=value`, or flags in a row and then one of these
  /// (`-qr value`).
  private mutating func takeShort(_ word: String) throws(UsageError) {
    var letters = word.dropFirst()
    let (name, _) = splitAtEquals(letters)
    guard name.count == 1 || table.long(name) == nil else { throw unknownOption("-\(name)") }
    while let letter = letters.popFirst() {
      guard let option = table.short(letter) else { throw unknownOption("-\(letter)") }
      if letters.first == "=" { return try record(option, attached: String(letters.dropFirst())) }
      let takesRest = option.arity != .flag && !letters.isEmpty
      try record(option, attached: takesRest ? String(letters) : nil)
      if option.arity != .flag { return }
    }
  }

  private func splitAtEquals(_ text: Substring) -> (name: String, value: String?) {
    guard let equals = text.firstIndex(of: "=") else { return (String(text), nil) }
    return (String(text[..<equals]), String(text[text.index(after: equals)...]))
  }

  private mutating func record(
    _ option: OptionDefinition, attached: String?
  ) throws(UsageError) {
    if option.arity == .flag {
      if let attached {
        throw error("\(option.spelling) takes no value, but was given \(quoted(attached))")
      }
      given[option.name] = []
      return
    }
    let value = if let attached { attached } else { try takeValue(of: option) }
    guard !value.isEmpty else {
      throw error("the value of \(option.spelling) \(option.valueName) is empty")
    }
    guard option.arity == .repeated || given[option.name] == nil else {
      throw error("\(option.spelling) can be given only once")
    }
    given[option.name, default: []].append(value)
  }

  private mutating func takeValue(of option: OptionDefinition) throws(UsageError) -> String {
    let message = "\(option.spelling) needs a value, \(option.valueName)"
    guard let next = rest.first else { throw error(message) }
    guard next == "-" || !next.hasPrefix("-") else {
      throw UsageError(
        message,
        advice: "a value that begins with '-' is written \(option.spelling)=\(option.valueName)")
    }
    rest.removeFirst()
    return next
  }
}

// MARK: - Errors

extension ArgumentScanner {
  func error(_ message: String) -> UsageError { UsageError(message, advice: helpAdvice) }

  func unknownCommand(_ name: String) -> UsageError {
    let near = nearest(to: name, among: program.commands.map(\.name))
    return suggestion("unknown command \(quoted(name))", near, program.helpAdvice(for: nil))
  }

  private func unknownOption(_ spelling: String) -> UsageError {
    let name = String(spelling.drop { $0 == "-" })
    if command == nil, program.commands.contains(where: { $0.options.contains { $0.name == name } })
    {
      return error("option \(quoted(spelling)) goes after the command's name")
    }
    // One letter is near to every short name, so it says nothing.
    let near = name.count > 1 ? nearest(to: name, among: table.definitions.map(\.name)) : []
    return suggestion("unknown option \(quoted(spelling))", near.map { "--\($0)" }, helpAdvice)
  }

  private func suggestion(_ message: String, _ near: [String], _ advice: String) -> UsageError {
    guard !near.isEmpty else { return UsageError(message, advice: advice) }
    let names = near.map { "'\($0)'" }.joined(separator: " or ")
    return UsageError(message, advice: "did you mean \(names)? (\(advice))")
  }
}
