package import Platform

/// Which restore points of a collection to keep. A point goes when no rule keeps it.
///
/// Points are counted by their `sequence`, newest first. A period rule keeps the newest point of each of the
/// last N periods that have one; periods are of the UTC calendar, weeks begin on Monday (ISO 8601).
public struct RetentionPolicy: Sendable, Equatable {
  /// Keeps the last N points; at least 1, as are the others.
  public var keepLast: Int?
  public var keepHourly: Int?
  public var keepDaily: Int?
  public var keepWeekly: Int?
  public var keepMonthly: Int?
  public var keepYearly: Int?
  /// Keeps what was taken in this span before the newest point, seconds.
  public var keepWithinSeconds: Int?

  public init() {}

  /// - Throws: `usage` when there is no rule, or one that keeps nothing.
  package func check() throws(StrobeError) {
    let numbers = [
      keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly, keepWithinSeconds,
    ].compactMap { $0 }
    guard !numbers.isEmpty else {
      throw StrobeError(
        .usage, "it isn't said which restore points to keep", advice: "give at least one rule")
    }
    guard numbers.allSatisfy({ $0 >= 1 }) else {
      throw StrobeError(.usage, "a rule that keeps 0 restore points", advice: "leave the rule out")
    }
  }

  /// The period rules that are given: how many periods each keeps.
  var periods: [(period: CalendarPeriod, count: Int)] {
    let counts = [keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly]
    return zip(CalendarPeriod.allCases, counts).compactMap { period, count in
      count.map { (period, $0) }
    }
  }
}

/// Why a restore point is kept.
public enum KeepReason: String, Codable, Sendable, CaseIterable {
  /// It is the newest of all.
  case newest
  /// It is the newest that was read back whole.
  case verified
  /// Somebody protected it.
  case protected
  case last, within, hourly, daily, weekly, monthly, yearly
}

/// What a retention policy has to know beside the points.
public struct RetentionFacts: Sendable {
  /// The ids of protected points.
  public var protected: Set<String>
  /// The id of the newest point that was read back whole, where it is known.
  public var newestVerified: String?
  public var now: Timestamp

  public init(protected: Set<String>, newestVerified: String? = nil, now: Timestamp) {
    self.protected = protected
    self.newestVerified = newestVerified
    self.now = now
  }
}

/// What a retention policy says of one point.
public struct RetentionDecision: Sendable, Equatable {
  public let point: PointSummary
  /// Which rules keep it, in the order of ``KeepReason``; none: it goes.
  public let keptBy: [KeepReason]
  /// The point's time can't be right: it lies in the future, or doesn't fit to its neighbours'.
  public let isTimeInDoubt: Bool
}
