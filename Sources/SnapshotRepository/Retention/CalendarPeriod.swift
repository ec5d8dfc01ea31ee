/// A kind of period of the UTC calendar.
enum CalendarPeriod: CaseIterable {
  case hour, day, week, month, year

  /// The number of the period that holds an instant; it grows with time.
  func number(of time: Timestamp) -> Int {
    let seconds = Timestamp.floored(time.nanoseconds, by: 1_000_000_000).0
    let days = Timestamp.floored(seconds, by: 86_400).0
    switch self {
    case .hour: return Timestamp.floored(seconds, by: 3600).0
    case .day: return days
    // 1970-01-01 was a Thursday, the fourth day of its week.
    case .week: return Timestamp.floored(days + 3, by: 7).0
    case .month:
      let date = Timestamp.date(daysSince1970: days)
      return date.0 * 12 + date.1
    case .year: return Timestamp.date(daysSince1970: days).0
    }
  }

  var reason: KeepReason {
    switch self {
    case .hour: .hourly
    case .day: .daily
    case .week: .weekly
    case .month: .monthly
    case .year: .yearly
    }
  }
}
