/// What is wrong with a command line, in one line: what, and what to do about it.
package struct UsageError: Error, Sendable, Equatable, CustomStringConvertible {
  /// One clause without a full stop: what is wrong.
  package let message: String
  /// What to write instead, or where to read about it.
  package let advice: String

  package init(_ message: String, advice: String) {
    self.message = message
    self.advice = advice
  }

  package var description: String { "\(message); \(advice)" }
}

/// Puts what the user typed between quotes, with control characters escaped so that an error stays
/// one line.
func quoted(_ text: String) -> String {
  var shown = ""
  for scalar in text.unicodeScalars {
    if scalar.properties.generalCategory == .control {
      shown += scalar.escaped(asASCII: true)
    } else {
      shown.unicodeScalars.append(scalar)
    }
  }
  return "'\(shown)'"
}
