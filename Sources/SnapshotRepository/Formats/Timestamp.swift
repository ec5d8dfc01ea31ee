import Glibc
import Platform

/// An instant in nanoseconds since 1970, written as RFC 3339 in UTC with milliseconds. From the year
/// 1677 to 2262: what 64 bits hold.
public struct Timestamp: Comparable, Hashable, Sendable, CustomStringConvertible {
  public let nanoseconds: Int

  public init(nanoseconds: Int) { self.nanoseconds = nanoseconds }

  public static var now: Timestamp {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    // Whole milliseconds, so that a written time reads back equal.
    // A clock beyond what can be written counts as the last or first instant that can.
    let seconds = min(max(time.tv_sec, -9_000_000_000), 9_000_000_000)
    return Timestamp(
      nanoseconds: seconds * 1_000_000_000 + time.tv_nsec / 1_000_000 * 1_000_000)
  }

  public static func < (left: Timestamp, right: Timestamp) -> Bool {
    left.nanoseconds < right.nanoseconds
  }

  public var description: String {
    let (wholeSeconds, fraction) = Self.floored(nanoseconds, by: 1_000_000_000)
    let (days, seconds) = Self.floored(wholeSeconds, by: 86_400)
    let (year, month, day) = Self.date(daysSince1970: days)
    let milliseconds = fraction / 1_000_000
    return Self.padded(year, 4) + "-" + Self.padded(month, 2) + "-" + Self.padded(day, 2) + "T"
      + Self.padded(seconds / 3600, 2) + ":" + Self.padded(seconds / 60 % 60, 2) + ":"
      + Self.padded(seconds % 60, 2) + "." + Self.padded(milliseconds, 3) + "Z"
  }

  /// Reads `2026-11-21`, `2026-11-21T08`, `2026-11-21T08:15`, with seconds and fractions, a blank for
  /// the `T`, and a `Z` or `+02:00` at the end; UTC when there is neither.
  public init?(_ text: some StringProtocol) {
    var rest = Substring(text)
    guard let year = Self.number(&rest, 4), Self.skip(&rest, "-"),
      let month = Self.number(&rest, 2),
      Self.skip(&rest, "-"), let day = Self.number(&rest, 2), 1...12 ~= month, 1...31 ~= day
    else { return nil }
    var seconds = Self.days(year, month, day) * 86_400
    var fraction = 0
    if Self.skip(&rest, "T") || Self.skip(&rest, " ") || Self.skip(&rest, "t") {
      guard let clock = Self.clock(&rest) else { return nil }
      seconds += clock.seconds
      fraction = clock.nanoseconds
      guard let zone = Self.zone(&rest) else { return nil }
      seconds -= zone
    }
    guard rest.isEmpty, Self.date(daysSince1970: Self.days(year, month, day)) == (year, month, day)
    else { return nil }
    let (whole, isTooFar) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, isBeyond) = whole.addingReportingOverflow(fraction)
    guard !isTooFar, !isBeyond else { return nil }
    nanoseconds = sum
  }

  private static func clock(_ rest: inout Substring) -> (seconds: Int, nanoseconds: Int)? {
    guard let hour = number(&rest, 2), hour < 24 else { return nil }
    var seconds = hour * 3600
    var fraction = 0
    if skip(&rest, ":") {
      guard let minute = number(&rest, 2), minute < 60 else { return nil }
      seconds += minute * 60
      if skip(&rest, ":") {
        guard let second = number(&rest, 2), second <= 60 else { return nil }
        seconds += second
        if skip(&rest, ".") {
          let digits = rest.prefix { $0.isASCII && $0.isNumber }
          guard !digits.isEmpty, let value = Int((digits + "000000000").prefix(9)) else {
            return nil
          }
          fraction = value
          rest = rest.dropFirst(digits.count)
        }
      }
    }
    return (seconds, fraction)
  }

  private static func zone(_ rest: inout Substring) -> Int? {
    if rest.isEmpty || skip(&rest, "Z") || skip(&rest, "z") { return 0 }
    let sign = rest.hasPrefix("-") ? -1 : 1
    guard skip(&rest, "+") || skip(&rest, "-"), let hours = number(&rest, 2),
      hours < 24
    else { return nil }
    if rest.isEmpty { return sign * hours * 3600 }
    _ = skip(&rest, ":")
    guard let minutes = number(&rest, 2), minutes < 60 else { return nil }
    return sign * (hours * 3600 + minutes * 60)
  }

  private static func number(_ rest: inout Substring, _ digits: Int) -> Int? {
    let found = rest.prefix(digits)
    guard found.count == digits, found.utf8.allSatisfy({ 48...57 ~= $0 }) else { return nil }
    rest = rest.dropFirst(digits)
    return Int(found)
  }

  private static func skip(_ rest: inout Substring, _ text: String) -> Bool {
    guard rest.hasPrefix(text) else { return false }
    rest = rest.dropFirst(text.count)
    return true
  }

  private static func padded(_ value: Int, _ digits: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  static func floored(_ value: Int, by divisor: Int) -> (Int, Int) {
    let rest = ((value % divisor) + divisor) % divisor
    return (value / divisor - (value % divisor < 0 ? 1 : 0), rest)
  }

  // The Gregorian calendar by days; source: https://howardhinnant.github.io/date_algorithms.html
  private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int {
    let shifted = month <= 2 ? year - 1 : year
    let (era, yearOfEra) = floored(shifted, by: 400)
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
  }

  static func date(daysSince1970 days: Int) -> (Int, Int, Int) {
    let (era, dayOfEra) = floored(days + 719_468, by: 146_097)
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    return (
      yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1
    )
  }
}

extension Timestamp: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let value = Timestamp(try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "no RFC 3339 time")
    }
    self = value
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
