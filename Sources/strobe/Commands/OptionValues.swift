import CommandLineArguments

/// Values that options of several commands have in common.
enum OptionValues {
  static func milliseconds(
    _ values: ParsedValues, _ option: Option, upTo most: Duration
  ) throws -> Int {
    let least = Duration.milliseconds(1)
    guard let span = try values.parse(option, as: .duration(in: least...most)) else { return 0 }
    let (seconds, attoseconds) = span.components
    return Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)
  }

  static func choice<Choice: RawRepresentable & CaseIterable>(
    _ values: ParsedValues, _ option: Option, as _: Choice.Type = Choice.self
  ) throws -> Choice where Choice.RawValue == String {
    let word = try values.require(option)
    guard let choice = Choice(rawValue: word) else {
      throw UsageError(
        "--\(option.definition.name) '\(word)' is none of "
          + Choice.allCases.map(\.rawValue).joined(separator: ", "),
        advice: "see strobe snapshot --help")
    }
    return choice
  }
}
