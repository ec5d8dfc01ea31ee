package import Platform

/// What may name a collection or a disk.
package enum Names {
  package static let longest = 128

  /// - Throws: `usage`, which says what is wrong with the name.
  package static func check(_ name: String, _ what: String) throws(StrobeError) {
    if let reason = fault(name) {
      throw StrobeError(
        .usage, "\(what) name \(quoted(name)) \(reason)",
        advice: "use letters, digits, '-', '_' and '.', at most \(longest) bytes")
    }
  }

  private static func fault(_ name: String) -> String? {
    if name.isEmpty { return "is empty" }
    if name.utf8.count > longest { return "has \(name.utf8.count) bytes, more than \(longest)" }
    if name == "." || name == ".." { return "is a directory's own" }
    if name.hasPrefix(".") || name.hasPrefix("-") { return "begins with '\(name.first!)'" }
    for scalar in name.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
        .paragraphSeparator:
        return "contains a control character"
      case .spaceSeparator where scalar != " ": return "contains an unusual blank"
      default: break
      }
      if "/\\@=:".unicodeScalars.contains(scalar) || scalar == "\u{FFFD}" {
        return "contains '\(scalar)'"
      }
    }
    if name.hasPrefix(" ") || name.hasSuffix(" ") { return "begins or ends with a blank" }
    return nil
  }

  /// Whether a name that a document gives to a disk stays in the folder where files are named after it, and
  /// is no other disk's.
  static func areFiles(_ names: [String]) -> Bool {
    Set(names).count == names.count
      && names.allSatisfy {
        !$0.isEmpty && $0 != "." && $0 != ".." && !$0.utf8.contains(UInt8(ascii: "/"))
          && !$0.utf8.contains(0)
      }
  }

  /// A name for a message: what a terminal would act on is shown as an escape, and it is cut short.
  package static func quoted(_ name: String) -> String {
    var text = ""
    for scalar in name.unicodeScalars.prefix(160) {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate:
        text += "\\u{" + String(scalar.value, radix: 16) + "}"
      default: text.unicodeScalars.append(scalar)
      }
    }
    return "'" + text + (name.unicodeScalars.count > 160 ? "…'" : "'")
  }
}
