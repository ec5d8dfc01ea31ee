/// A text of digits and a unit, and the errors that can be made in one.
struct Quantity {
  let text: String
  /// The option or argument, for errors.
  let name: String
  let digits: Substring
  /// What follows the digits.
  let unit: String

  init(_ text: String, _ name: String) {
    self.text = text
    self.name = name
    // An accent on a digit makes it another character, which sorts between two digits.
    digits = text.prefix { $0.isASCII && ("0"..."9").contains($0) }
    unit = String(text[digits.endIndex...])
  }

  var isWellFormed: Bool { !digits.isEmpty }

  func multiplied(by factor: Int) throws(UsageError) -> Int {
    let (product, overflow) = (Int(digits) ?? .max).multipliedReportingOverflow(by: factor)
    guard Int(digits) != nil, !overflow else {
      throw UsageError("\(name) \(quoted(text)) is too large", advice: "write a smaller one")
    }
    return product
  }

  func check<Value: Comparable>(
    _ value: Value, in range: ClosedRange<Value>, show: (Value) -> String
  ) throws(UsageError) -> Value {
    guard value >= range.lowerBound else {
      throw UsageError(
        "\(name) \(quoted(text)) is too small", advice: "the least is \(show(range.lowerBound))")
    }
    guard value <= range.upperBound else {
      throw UsageError(
        "\(name) \(quoted(text)) is too large", advice: "the most is \(show(range.upperBound))")
    }
    return value
  }

  func malformed(_ kind: String, like example: String) -> UsageError {
    UsageError("\(name) \(quoted(text)) is not \(kind)", advice: "write it like \(example)")
  }
}

// MARK: - Bytes

private let bytePrefixes: [Character] = ["k", "m", "g", "t", "p", "e"]

/// The bytes of a unit in either case: none, `B`, `K`, `KiB`, … `EiB`; nil for any other, and for
/// `KB`, which some read as 1000 and others as 1024.
func byteUnitSize(_ unit: String) -> Int? {
  let lower = unit.lowercased()
  if lower.isEmpty || lower == "b" { return 1 }
  guard let power = bytePrefixes.firstIndex(of: lower.first ?? " "),
    lower.count == 1 || lower.dropFirst() == "ib"
  else { return nil }
  return 1 << (10 * (power + 1))
}

/// A size in the largest unit that leaves no remainder.
func showByteCount(_ byteCount: Int) -> String {
  var count = byteCount
  var unit = ""
  for prefix in bytePrefixes where count > 0 && count.isMultiple(of: 1024) {
    count /= 1024
    unit = "\(prefix.uppercased())iB"
  }
  return "\(count)\(unit)"
}

// MARK: - Durations

/// A year has 365 days.
private let secondUnits: [(name: String, seconds: Int)] = [
  ("y", 31_536_000), ("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1),
]

/// The duration that a quantity spells; nil when its unit is unknown or missing.
func spelledDuration(_ quantity: Quantity) throws(UsageError) -> Duration? {
  if quantity.unit == "ms" { return .milliseconds(try quantity.multiplied(by: 1)) }
  guard let unit = secondUnits.first(where: { $0.name == quantity.unit }) else { return nil }
  return .seconds(try quantity.multiplied(by: unit.seconds))
}

/// A duration in the largest unit that leaves no remainder.
func showDuration(_ duration: Duration) -> String {
  let (seconds, attoseconds) = duration.components
  guard attoseconds == 0 else {
    return "\(seconds * 1000 + attoseconds / 1_000_000_000_000_000)ms"
  }
  let unit = secondUnits.first { Int(seconds).isMultiple(of: $0.seconds) }
  guard seconds != 0, let unit else { return "\(seconds)s" }
  return "\(Int(seconds) / unit.seconds)\(unit.name)"
}
