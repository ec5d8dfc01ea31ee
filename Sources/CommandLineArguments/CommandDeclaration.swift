/// One command of a program: what it takes, and all that its help page says.
package struct CommandDeclaration: Sendable {
  package let name: String
  package let summary: String
  let group: String
  let usage: [String]
  let discussion: String
  let arguments: [ArgumentDefinition]
  let options: [OptionDefinition]
  let examples: [Example]
  let exitStatuses: [ExitStatus]

  /// - Parameters:
  ///   - name: what the user types: `snapshot`.
  ///   - summary: one line for the list of commands and the head of the help page.
  ///   - group: the heading under which the general help lists the command.
  ///   - usage: what follows the command's name in each usage line; made from the declarations
  ///     when empty.
  ///   - discussion: paragraphs with a blank line between them; a line that begins with a space is
  ///     kept as it is.
  ///   - arguments: positional arguments in their order: required, then optional, then repeated.
  ///   - options: the command's own options; the program's common ones are added.
  ///   - examples: command lines to copy.
  ///   - exitStatuses: what the statuses mean here; those of the program when empty.
  package init(
    name: String, summary: String, group: String = "Commands", usage: [String] = [],
    discussion: String = "", arguments: [any ArgumentDeclaration] = [],
    options: [any OptionDeclaration] = [], examples: [Example] = [],
    exitStatuses: [ExitStatus] = []
  ) {
    self.name = name
    self.summary = summary
    self.group = group
    self.usage = usage
    self.discussion = discussion
    self.arguments = arguments.map(\.definition)
    self.options = options.map(\.definition)
    self.examples = examples
    self.exitStatuses = exitStatuses
  }
}

/// A command line to copy from a help page, and what it is for.
package struct Example: Sendable {
  let commandLine: String
  let purpose: String

  package init(_ commandLine: String, _ purpose: String) {
    self.commandLine = commandLine
    self.purpose = purpose
  }
}

/// A status that the program exits with, and what it means.
package struct ExitStatus: Sendable {
  package let code: Int32
  package let meaning: String

  package init(_ code: Int32, _ meaning: String) {
    self.code = code
    self.meaning = meaning
  }
}
