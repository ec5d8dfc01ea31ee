extension ProgramDeclaration {
  /// Stops at the first declaration that could not work, with the words to find it by.
  func requireConsistentDeclarations() {
    requireUnique(commands.map(\.name), "command")
    requireUsableOptions(options(of: nil), of: name)
    for command in commands {
      requireUsableOptions(options(of: command), of: command.name)
      requireUsableArguments(command)
    }
  }

  private func requireUsableOptions(_ table: OptionTable, of owner: String) {
    requireUnique(table.definitions.map(\.name), "option of \(owner)")
    requireUnique(table.definitions.compactMap(\.short), "short option of \(owner)")
    for option in table.definitions {
      precondition(isOptionName(option.name), "option name '\(option.name)' can't be typed")
      precondition(option.short.map(isAlphanumeric) ?? true, "\(option.spelling): bad short name")
      precondition(option.defaultValue != "", "\(option.spelling): the default is empty")
      precondition(
        option.arity == .flag || !option.valueName.isEmpty, "\(option.spelling): unnamed value")
    }
  }

  private func requireUsableArguments(_ command: CommandDeclaration) {
    requireUnique(command.arguments.map(\.name), "argument of \(command.name)")
    for (earlier, later) in zip(command.arguments, command.arguments.dropFirst()) {
      precondition(
        !earlier.isRepeating, "\(command.name): nothing can follow \(earlier.usage)")
      precondition(
        earlier.minimumCount >= min(later.minimumCount, 1),
        "\(command.name): \(later.usage) can't follow \(earlier.usage)")
    }
  }

  private func requireUnique<Name: Hashable>(_ names: [Name], _ kind: String) {
    var seen: Set<Name> = []
    for name in names {
      precondition(seen.insert(name).inserted, "\(kind) '\(name)' is declared twice")
    }
  }

  /// At least two characters, so that `-json` can be told from a run of short options.
  private func isOptionName(_ name: String) -> Bool {
    name.count >= 2 && name.first != "-" && name.allSatisfy { isAlphanumeric($0) || $0 == "-" }
  }

  private func isAlphanumeric(_ character: Character) -> Bool {
    character.isASCII && (character.isLetter || character.isNumber)
  }
}
