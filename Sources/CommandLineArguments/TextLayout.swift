/// One line of a two-column table: a label, and words that are wrapped beside it.
struct LabelledText {
  let label: String
  /// Each is kept on one line, so a word may contain spaces.
  let words: [String]

  init(_ label: String, _ words: [String]) {
    self.label = label
    self.words = words
  }

  init(_ label: String, _ text: String) {
    self.init(label, splitWords(text))
  }
}

/// Lays text out in a fixed number of columns.
struct TextLayout {
  /// Columns, never fewer than 40.
  let width: Int
  static let indent = "  "

  init(width: Int) {
    self.width = max(40, width)
  }

  /// Wraps paragraphs that have a blank line between them, and keeps lines that begin with a space.
  func paragraphs(_ text: String) -> String {
    var lines: [String] = []
    var words: [String] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      let isKept = line.first?.isWhitespace ?? true
      words += isKept ? [] : splitWords(line)
      guard isKept else { continue }
      lines += wrap(words, columns: width) + [String(line)]
      words = []
    }
    return (lines + wrap(words, columns: width)).joined(separator: "\n")
  }

  /// Puts a heading over rows whose texts begin at `column`.
  ///
  /// A label that reaches into the texts' column has a line of its own.
  func table(_ title: String, _ rows: [LabelledText], column: Int) -> String {
    var lines = ["\(title):"]
    for row in rows {
      let label = Self.indent + row.label
      var texts = wrap(row.words, columns: width - column)
      let fits = label.count + Self.indent.count <= column
      let first = fits && !texts.isEmpty ? texts.removeFirst() : ""
      lines.append(first.isEmpty ? label : padded(label, to: column) + first)
      lines += texts.map { padded("", to: column) + $0 }
    }
    return lines.joined(separator: "\n")
  }

  /// The column at which the texts of all these rows can begin, at most two fifths of the width.
  func textColumn(beside rows: [LabelledText]) -> Int {
    let limit = width * 2 / 5
    let columns = rows.map { $0.label.count + 2 * Self.indent.count }
    return columns.filter { $0 <= limit }.max() ?? limit
  }

  /// A head and words after it, wrapped with the following lines indented to the end of the head.
  func hanging(_ head: String, _ words: [String]) -> String {
    let lines = wrap(words, columns: width - head.count)
    return head + lines.joined(separator: "\n" + padded("", to: head.count))
  }
}

func splitWords(_ text: some StringProtocol) -> [String] {
  Substring(text).split(whereSeparator: \.isWhitespace).map(String.init)
}

/// Fills lines of at most `columns` characters; a longer word has a line of its own.
func wrap(_ words: [String], columns: Int) -> [String] {
  var lines: [String] = []
  for word in words {
    if let last = lines.last, last.count + 1 + word.count <= columns {
      lines[lines.count - 1] = "\(last) \(word)"
    } else {
      lines.append(word)
    }
  }
  return lines
}

private func padded(_ text: String, to count: Int) -> String {
  text + String(repeating: " ", count: max(0, count - text.count))
}
