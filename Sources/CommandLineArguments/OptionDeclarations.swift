/// A declared option of any kind: a ``Flag``, an ``Option`` or a ``RepeatedOption``.
package protocol OptionDeclaration: Sendable {
  var definition: OptionDefinition { get }
}

/// An option without a value, false unless given: `--json`.
package struct Flag: OptionDeclaration {
  package let definition: OptionDefinition

  /// - Parameters:
  ///   - name: the long name without its dashes.
  ///   - short: the letter of the alias, `"q"` for `-q`.
  ///   - help: what it does, for the help page.
  package init(_ name: String, short: Character? = nil, help: String) {
    definition = OptionDefinition(name: name, short: short, arity: .flag, help: help)
  }
}

/// An option with one value, given at most once: `--chunk-size SIZE`.
package struct Option: OptionDeclaration {
  package let definition: OptionDefinition

  /// The value is the one on the command line, or else that of the environment variable (where it
  /// is set and not empty), or else the default.
  ///
  /// - Parameters:
  ///   - name: the long name without its dashes.
  ///   - short: the letter of the alias, `"r"` for `-r`.
  ///   - value: what the value is called in help and errors: `SIZE`.
  ///   - default: the value where nothing else gives one.
  ///   - environment: the name of an environment variable that can give the value.
  ///   - help: what it does, for the help page.
  package init(
    _ name: String, short: Character? = nil, value: String, default: String? = nil,
    environment: String? = nil, help: String
  ) {
    definition = OptionDefinition(
      name: name, short: short, arity: .once, valueName: value, help: help,
      defaultValue: `default`, environmentVariable: environment)
  }
}

/// An option with a value that may be given any number of times: `--disk NAME=PATH`.
package struct RepeatedOption: OptionDeclaration {
  package let definition: OptionDefinition

  /// - Parameters:
  ///   - name: the long name without its dashes.
  ///   - short: the letter of the alias, `"d"` for `-d`.
  ///   - value: what the value is called in help and errors: `NAME=PATH`.
  ///   - help: what it does, for the help page.
  package init(_ name: String, short: Character? = nil, value: String, help: String) {
    definition = OptionDefinition(
      name: name, short: short, arity: .repeated, valueName: value, help: help)
  }
}

/// What the parser and the help page know about an option of any kind.
package struct OptionDefinition: Sendable, Equatable {
  enum Arity { case flag, once, repeated }

  package let name: String
  let short: Character?
  let arity: Arity
  var valueName = ""
  let help: String
  var defaultValue: String?
  var environmentVariable: String?

  /// How the option is named in errors: `--disk`.
  var spelling: String { "--\(name)" }
}

/// The options that can be given at one place of the command line.
struct OptionTable {
  let definitions: [OptionDefinition]

  func long(_ name: String) -> OptionDefinition? {
    definitions.first { $0.name == name }
  }

  func short(_ letter: Character) -> OptionDefinition? {
    definitions.first { $0.short == letter }
  }
}
