/// How the text of an option or argument is read as a value:
/// `values.parse(chunkSize, as: .byteCount())`.
package struct ValueFormat<Value>: Sendable {
  /// Reads `text`; an error names the option or argument `name`.
  package let parse: @Sendable (_ text: String, _ name: String) throws(UsageError) -> Value

  package init(
    _ parse: @escaping @Sendable (_ text: String, _ name: String) throws(UsageError) -> Value
  ) {
    self.parse = parse
  }
}

extension ValueFormat<String> {
  /// The text as it is.
  package static var text: Self {
    Self { (text, _) throws(UsageError) in text }
  }
}

extension ValueFormat<Int> {
  /// A whole number in decimal digits.
  package static func wholeNumber(in range: ClosedRange<Int> = 0...Int.max) -> Self {
    Self { (text, name) throws(UsageError) in
      let quantity = Quantity(text, name)
      guard quantity.isWellFormed, quantity.unit.isEmpty else {
        throw quantity.malformed("a whole number", like: "10")
      }
      return try quantity.check(try quantity.multiplied(by: 1), in: range) { "\($0)" }
    }
  }

  /// A number of things, at least 1; one that is too large for an `Int` counts as the largest.
  package static var count: Self {
    let number = wholeNumber(in: 1...Int.max)
    return Self { (text, name) throws(UsageError) in
      let quantity = Quantity(text, name)
      let isHuge = quantity.isWellFormed && quantity.unit.isEmpty && Int(text) == nil
      return isHuge ? .max : try number.parse(text, name)
    }
  }

  /// A size in bytes: digits and a binary unit, which may be left out (`4096`, `64K`, `64KiB`).
  package static func byteCount(in range: ClosedRange<Int> = 0...Int.max) -> Self {
    Self { (text, name) throws(UsageError) in
      let quantity = Quantity(text, name)
      guard quantity.isWellFormed, let size = byteUnitSize(quantity.unit) else {
        throw quantity.malformed("a size", like: "4096, 64KiB or 1GiB")
      }
      return try quantity.check(try quantity.multiplied(by: size), in: range, show: showByteCount)
    }
  }
}

extension ValueFormat<Duration> {
  /// A time span: digits and one of the units `ms`, `s`, `m`, `h`, `d`, `w`, `y`
  /// (365 days).
  package static func duration(
    in range: ClosedRange<Duration> = .zero ... .seconds(Int64.max)
  ) -> Self {
    Self { (text, name) throws(UsageError) in
      let quantity = Quantity(text, name)
      guard quantity.isWellFormed, let duration = try spelledDuration(quantity) else {
        throw quantity.malformed("a duration", like: "500ms, 10s, 30m, 2h or 7d")
      }
      return try quantity.check(duration, in: range, show: showDuration)
    }
  }
}

/// The value of an option like `--disk NAME=PATH`.
package struct Assignment: Sendable, Equatable {
  package let name: String
  package let value: String
}

extension ValueFormat<Assignment> {
  /// A name and a value, neither of them empty, on the two sides of the first `=`.
  package static var assignment: Self {
    Self { (text, name) throws(UsageError) in
      guard let equals = text.firstIndex(of: "="), equals != text.startIndex,
        text.index(after: equals) != text.endIndex
      else {
        throw UsageError(
          "\(name) \(quoted(text)) is not a name and a value", advice: "write it like NAME=VALUE")
      }
      return Assignment(
        name: String(text[..<equals]), value: String(text[text.index(after: equals)...]))
    }
  }
}
