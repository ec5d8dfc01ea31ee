/// Writes the help pages of a program: sections with a blank line between them.
struct HelpPage {
  let program: ProgramDeclaration
  private let layout: TextLayout

  init(program: ProgramDeclaration, width: Int) {
    self.program = program
    layout = TextLayout(width: width)
  }

  /// The page of the whole program: its commands and common options.
  var generalText: String {
    let groups = commandGroups
    let options = program.options(of: nil).definitions.map(row(for:))
    let column = layout.textColumn(beside: groups.flatMap(\.rows) + options)
    var sections = [
      usage(["[OPTIONS] COMMAND [ARGUMENTS]"], of: program.name),
      layout.paragraphs(program.summary),
      layout.paragraphs(program.discussion),
    ]
    sections += groups.map { layout.table($0.title, $0.rows, column: column) }
    sections.append(layout.table("Options", options, column: column))
    sections += closing(program.examples, program.exitStatuses)
    sections.append(
      layout.paragraphs(
        "See '\(program.name) help COMMAND' for the options and examples of a command."))
    return join(sections)
  }

  /// The page of one command.
  func text(for command: CommandDeclaration) -> String {
    let arguments = command.arguments.map { LabelledText($0.name, $0.help) }
    let options = command.options.map(row(for:))
    let common = (program.commonOptions + [Flag.help.definition]).map(row(for:))
    let column = layout.textColumn(beside: arguments + options + common)
    let tables = [
      ("Arguments", arguments), ("Options", options),
      (options.isEmpty ? "Options" : "Common options", common),
    ]
    let forms = command.usage.isEmpty ? [generatedUsage(of: command)] : command.usage
    var sections = [
      usage(forms, of: "\(program.name) \(command.name)"), layout.paragraphs(command.summary),
      layout.paragraphs(command.discussion),
    ]
    sections += tables.filter { !$0.1.isEmpty }.map { layout.table($0, $1, column: column) }
    let exitStatuses = command.exitStatuses.isEmpty ? program.exitStatuses : command.exitStatuses
    sections += closing(command.examples, exitStatuses)
    return join(sections)
  }

  private func join(_ sections: [String]) -> String {
    sections.filter { !$0.isEmpty }.joined(separator: "\n\n")
  }
}

// MARK: - Sections

extension HelpPage {
  /// The commands under the headings of their groups, in the order of the first of each.
  ///
  /// `help` belongs to no group; the end of the page tells of it.
  private var commandGroups: [(title: String, rows: [LabelledText])] {
    var groups: [(title: String, rows: [LabelledText])] = []
    for command in program.commands where command.name != CommandDeclaration.help.name {
      let row = LabelledText(command.name, command.summary)
      if let index = groups.firstIndex(where: { $0.title == command.group }) {
        groups[index].rows.append(row)
      } else {
        groups.append((command.group, [row]))
      }
    }
    return groups
  }

  private func usage(_ forms: [String], of path: String) -> String {
    let lines = forms.enumerated().map { index, form in
      let head = index == 0 ? "Usage: " : "       "
      return layout.hanging("\(head)\(path) ", splitWords(form))
    }
    return lines.joined(separator: "\n")
  }

  private func generatedUsage(of command: CommandDeclaration) -> String {
    (["[OPTIONS]"] + command.arguments.map(\.usage)).joined(separator: " ")
  }

  /// An option's label is `-r, --repository DIR`, and the notes after its help are never broken.
  private func row(for option: OptionDefinition) -> LabelledText {
    let short = option.short.map { "-\($0), " } ?? "    "
    let value = option.arity == .flag ? "" : " \(option.valueName)"
    let notes = [
      option.arity == .repeated ? "[repeatable]" : nil,
      option.defaultValue.map { "[default: \($0)]" },
      option.environmentVariable.map { "[env: \($0)]" },
    ]
    return LabelledText(
      short + option.spelling + value, splitWords(option.help) + notes.compactMap(\.self))
  }

  private func closing(_ examples: [Example], _ statuses: [ExitStatus]) -> [String] {
    let statusRows = statuses.map { LabelledText("\($0.code)", $0.meaning) }
    let column = layout.textColumn(beside: statusRows)
    return [
      examples.isEmpty ? "" : "Examples:\n" + examples.map(text(of:)).joined(separator: "\n\n"),
      statuses.isEmpty ? "" : layout.table("Exit status", statusRows, column: column),
    ]
  }

  /// The command line stays on one line, however long, so that it can be copied.
  private func text(of example: Example) -> String {
    let head = TextLayout.indent + "# "
    let purpose = wrap(splitWords(example.purpose), columns: layout.width - head.count)
    let lines = purpose.map { head + $0 } + [TextLayout.indent + example.commandLine]
    return lines.joined(separator: "\n")
  }
}
