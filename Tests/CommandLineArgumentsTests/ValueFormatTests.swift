import CommandLineArguments
import Testing

/// What a format makes of a text, or the error as the user reads it.
private func read<Value>(_ text: String, as format: ValueFormat<Value>) -> Result<Value, UsageError>
{
  Result { () throws(UsageError) in try format.parse(text, "--x") }
}

private func error<Value>(_ text: String, as format: ValueFormat<Value>) -> String {
  switch read(text, as: format) {
  case .success(let value): "no error, but \(value)"
  case .failure(let error): error.description
  }
}

@Suite("Sizes")
struct ByteCountTests {
  static let sizes: [(text: String, byteCount: Int)] = [
    ("0", 0), ("4096", 4096), ("4096B", 4096), ("64KiB", 65_536), ("64K", 65_536),
    ("64k", 65_536), ("64kib", 65_536), ("1MiB", 1_048_576), ("1M", 1_048_576),
    ("1G", 1_073_741_824), ("2TiB", 2_199_023_255_552), ("3P", 3_377_699_720_527_872),
    ("7EiB", 8_070_450_532_247_928_832), ("9223372036854775807", Int.max),
  ]

  @Test("A size is digits and a binary unit in either case", arguments: sizes)
  func accepted(text: String, byteCount: Int) {
    #expect(read(text, as: .byteCount()) == .success(byteCount))
  }

  @Test(
    "Anything else is not a size",
    arguments: ["", "K", "-1", "+1", "1.5G", "64KB", "64 K", "0x10", "1KiBi", "1KK", "٣"])
  func malformed(text: String) {
    #expect(
      error(text, as: .byteCount())
        == "--x '\(text)' is not a size; write it like 4096, 64KiB or 1GiB")
  }

  @Test(
    "A size that doesn't fit is an error and no crash",
    arguments: ["8E", "9223372036854775808", "99999999999999999999", "9007199254740992K"])
  func overflow(text: String) {
    #expect(error(text, as: .byteCount()) == "--x '\(text)' is too large; write a smaller one")
  }

  @Test("A size outside the range is an error that names the bound")
  func range() {
    let format = ValueFormat.byteCount(in: 4096...4_194_304)
    #expect(read("4K", as: format) == .success(4096))
    #expect(read("4M", as: format) == .success(4_194_304))
    #expect(error("4095", as: format) == "--x '4095' is too small; the least is 4KiB")
    #expect(error("8M", as: format) == "--x '8M' is too large; the most is 4MiB")
    #expect(
      error("2000", as: .byteCount(in: 0...1000)) == "--x '2000' is too large; the most is 1000")
  }
}

@Suite("Whole numbers")
struct WholeNumberTests {
  @Test("A whole number is decimal digits", arguments: [("0", 0), ("007", 7), ("10", 10)])
  func numbers(text: String, number: Int) {
    #expect(read(text, as: .wholeNumber()) == .success(number))
  }

  @Test("Anything else is not one", arguments: ["", "-1", "1K", "ten", "1 ", "5\u{301}"])
  func malformed(text: String) {
    #expect(
      error(text, as: .wholeNumber())
        == "--x '\(text)' is not a whole number; write it like 10")
  }

  @Test("Its range is kept")
  func range() {
    #expect(
      error("0", as: .wholeNumber(in: 1...9)) == "--x '0' is too small; the least is 1")
    #expect(
      error("10", as: .wholeNumber(in: 1...9)) == "--x '10' is too large; the most is 9")
    #expect(
      error("9223372036854775808", as: .wholeNumber())
        == "--x '9223372036854775808' is too large; write a smaller one")
  }
}

@Suite("Durations")
struct DurationTests {
  static let durations: [(text: String, duration: Duration)] = [
    ("500ms", .milliseconds(500)), ("0s", .zero), ("10s", .seconds(10)), ("30m", .seconds(1800)),
    ("2h", .seconds(7200)), ("7d", .seconds(604_800)), ("1w", .seconds(604_800)),
    ("9223372036854775807s", .seconds(Int64.max)),
  ]

  @Test("A duration is digits and a unit", arguments: durations)
  func accepted(text: String, duration: Duration) {
    #expect(read(text, as: .duration()) == .success(duration))
  }

  @Test(
    "Anything else is not one", arguments: ["", "10", "s", "-1s", "1.5s", "1h30m", "1M", "1 s"])
  func malformed(text: String) {
    #expect(
      error(text, as: .duration())
        == "--x '\(text)' is not a duration; write it like 500ms, 10s, 30m, 2h or 7d")
  }

  @Test("A year has 365 days; a number of things is at least 1 and never too large")
  func yearsAndCounts() {
    #expect(read("2y", as: .duration()) == .success(.seconds(730 * 86_400)))
    #expect(read("7", as: .count) == .success(7))
    #expect(read("99999999999999999999", as: .count) == .success(.max))
    #expect(error("0", as: .count) == "--x '0' is too small; the least is 1")
    #expect(error("9x", as: .count) == "--x '9x' is not a whole number; write it like 10")
    #expect(error("", as: .count).contains("is not a whole number"))
  }

  @Test("A duration that doesn't fit is an error", arguments: ["9223372036854775807m", "1e9s"])
  func overflow(text: String) {
    #expect(error(text, as: .duration()).hasPrefix("--x '\(text)' is "))
  }

  @Test("Its range is kept, and the bound is named in the largest unit that fits")
  func range() {
    let format = ValueFormat.duration(in: .milliseconds(1500) ... .seconds(7200))
    #expect(error("1s", as: format) == "--x '1s' is too small; the least is 1500ms")
    #expect(error("3h", as: format) == "--x '3h' is too large; the most is 2h")
    #expect(
      error("0s", as: .duration(in: .seconds(90) ... .seconds(100)))
        == "--x '0s' is too small; the least is 90s")
    #expect(
      error("1s", as: .duration(in: .zero ... .zero)) == "--x '1s' is too large; the most is 0s")
  }
}

@Suite("Names with values")
struct AssignmentTests {
  @Test("The first equals sign parts the name from the value")
  func parts() throws {
    let assignment = try read("os=/dev/a=b", as: .assignment).get()
    #expect(assignment.name == "os")
    #expect(assignment.value == "/dev/a=b")
  }

  @Test("Neither side may be empty", arguments: ["", "os", "=x", "os=", "="])
  func malformed(text: String) {
    #expect(
      error(text, as: .assignment)
        == "--x '\(text)' is not a name and a value; write it like NAME=VALUE")
  }
}

@Suite("Values read in a format")
struct FormattedValueTests {
  @Test("Options and arguments of every kind can be read in a format")
  func everyKind() throws {
    let snapshot = try Sample.values("snapshot", "7", "--disk", "a=1", "--disk", "b=2")
    #expect(try snapshot.parse(Sample.chunkSize, as: .byteCount()) == 65_536)
    #expect(try snapshot.parse(Sample.disk, as: .assignment).map(\.name) == ["a", "b"])
    #expect(try snapshot.parse(Sample.collection, as: .wholeNumber()) == 7)
    #expect(try snapshot.parse(Sample.repository, as: .text) == nil)
    let scrub = try Sample.values("scrub", "1", "2", "3")
    #expect(try scrub.parse(Sample.listed, as: .wholeNumber()) == 1)
    #expect(try scrub.parse(Sample.paths, as: .wholeNumber()) == [2, 3])
    #expect(try Sample.values("scrub").parse(Sample.listed, as: .wholeNumber()) == nil)
  }

  @Test("An error names the option, argument or environment variable that has to be corrected")
  func names() throws {
    let environment = ["STROBE_MAX_FREEZE": "long"]
    let values = try Sample.values(
      "snapshot", "web", "--chunk-size", "big", "-d", "a=1", "-d", "b", environment: environment)
    let option = #expect(throws: UsageError.self) {
      try values.parse(Sample.chunkSize, as: .byteCount())
    }
    #expect(option?.message == "--chunk-size 'big' is not a size")
    let variable = #expect(throws: UsageError.self) {
      try values.parse(Sample.maxFreeze, as: .duration())
    }
    #expect(variable?.message == "$STROBE_MAX_FREEZE 'long' is not a duration")
    let repeated = #expect(throws: UsageError.self) {
      try values.parse(Sample.disk, as: .assignment)
    }
    #expect(repeated?.message == "--disk 'b' is not a name and a value")
    let argument = #expect(throws: UsageError.self) {
      try values.parse(Sample.collection, as: .wholeNumber())
    }
    #expect(argument?.message == "COLLECTION 'web' is not a whole number")
  }

  @Test("A required option is its value or default, or an error that says how to give it")
  func required() throws {
    let values = try Sample.values("snapshot", "web")
    #expect(try values.require(Sample.chunkSize) == "64KiB")
    #expect(try values.require(Sample.maxFreeze, as: .duration()) == .seconds(10))
    let missing = UsageError(
      "missing option --repository DIR",
      advice: "set STROBE_REPOSITORY, or see 'strobe snapshot --help'")
    #expect(throws: missing) { try values.require(Sample.repository) }
  }
}
