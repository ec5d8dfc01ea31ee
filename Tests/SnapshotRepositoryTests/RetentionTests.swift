import Foundation
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// A timeline of points, and what a policy says of it.
struct Timeline {
  let points: [PointSummary]
  let now: Timestamp

  init(_ times: [Timestamp], now: Timestamp) {
    let record = CollectionRecord(name: "web", chunkSize: 65_536, disks: [])
    points = times.enumerated().map { index, time in
      PointSummary(
        RestorePoint(
          id: Self.id(index), collection: record, sequence: index + 1, parent: nil, created: time,
          finished: time, consistency: .crashConsistent, consistencyReasons: [],
          freezeWindowMilliseconds: nil, disks: [], writer: "a test"))
    }
    self.now = now
  }

  static func id(_ index: Int) -> String {
    String(repeating: "0", count: 24 - String(index).count) + String(index)
  }

  func decisions(
    _ policy: RetentionPolicy, protected: Set<Int> = [], verified: Int? = nil
  ) throws -> [RetentionDecision] {
    try policy.decisions(
      points,
      RetentionFacts(
        protected: Set(protected.map(Self.id)), newestVerified: verified.map(Self.id), now: now))
  }

  /// The indices of the points that stay.
  func kept(_ policy: RetentionPolicy) throws -> Set<Int> {
    let decisions = try decisions(policy)
    #expect(decisions.map(\.point) == points)
    return Set(decisions.indices.filter { !decisions[$0].keptBy.isEmpty })
  }
}

func time(_ text: String) -> Timestamp { Timestamp(text)! }

/// A policy of one rule.
func rule(
  _ rule: WritableKeyPath<RetentionPolicy, Int?>, _ count: Int
) -> RetentionPolicy {
  var policy = RetentionPolicy()
  policy[keyPath: rule] = count
  return policy
}

/// A rule, and the period of an instant as another calendar than Strobe's names it.
struct PeriodRule: Sendable {
  let reason: KeepReason
  let components: Set<Calendar.Component>

  static let all = [
    PeriodRule(reason: .hourly, components: [.year, .month, .day, .hour]),
    PeriodRule(reason: .daily, components: [.year, .month, .day]),
    PeriodRule(reason: .weekly, components: [.yearForWeekOfYear, .weekOfYear]),
    PeriodRule(reason: .monthly, components: [.year, .month]),
    PeriodRule(reason: .yearly, components: [.year]),
  ]

  var path: WritableKeyPath<RetentionPolicy, Int?> {
    switch reason {
    case .hourly: \.keepHourly
    case .daily: \.keepDaily
    case .weekly: \.keepWeekly
    case .monthly: \.keepMonthly
    default: \.keepYearly
    }
  }

  func period(_ time: Timestamp) -> DateComponents {
    var calendar = Calendar(identifier: .iso8601)
    calendar.timeZone = TimeZone(identifier: "UTC")!
    // Whole seconds: a Date has no place for more.
    let date = Date(timeIntervalSince1970: (Double(time.nanoseconds) / 1e9).rounded(.down))
    return calendar.dateComponents(components, from: date)
  }

  /// By the words of the manual: the newest point of each of the last `count` periods that have one.
  func kept(_ times: [Timestamp], _ count: Int) -> Set<Int> {
    var periods: [DateComponents] = []
    var kept: Set<Int> = []
    for index in times.indices.reversed() {
      let period = period(times[index])
      if !periods.contains(period) {
        periods.append(period)
        if periods.count <= count { kept.insert(index) }
      }
    }
    return kept
  }
}

@Suite("What a retention policy keeps")
struct RetentionTests {
  /// Six points around the ends of an hour, a day, a week, a month and a year.
  static let instants = [
    "2025-12-28T23:30Z", "2025-12-29T00:10Z", "2025-12-31T23:59:59.999Z", "2026-01-01T00:00Z",
    "2026-01-01T00:40Z", "2026-01-05T12:00Z",
  ].map(time)

  /// All 64 subsets of the six.
  static var subsets: [[Timestamp]] {
    (0..<64).map { mask in instants.indices.filter { mask >> $0 & 1 == 1 }.map { instants[$0] } }
  }

  private let now = time("2026-01-05T13:00Z")

  @Test("Period rules keep what another calendar says, for all subsets of a timeline")
  func periods() throws {
    for times in Self.subsets {
      let timeline = Timeline(times, now: now)
      for rule in PeriodRule.all {
        for count in [1, 2, 3, 4, 6, 7, Int.max] {
          var policy = RetentionPolicy()
          policy[keyPath: rule.path] = count
          let decisions = try timeline.decisions(policy)
          let kept = decisions.indices.filter { decisions[$0].keptBy.contains(rule.reason) }
          #expect(Set(kept) == rule.kept(times, count), "\(rule.reason) \(count) \(times)")
          #expect(decisions.allSatisfy { !$0.isTimeInDoubt })
        }
      }
    }
  }

  @Test("Periods agree with another calendar at random instants, also before 1970")
  func calendar() throws {
    var generator = SeededGenerator(seed: 11)
    for _ in 0..<400 {
      // Two instants a little apart, anywhere from 1700 to 2250.
      let first = Int.random(in: -8_520_000_000...8_830_000_000, using: &generator)
      let gap = [60, 3600, 86_400, 7 * 86_400, 31 * 86_400, 366 * 86_400].randomElement(
        using: &generator)!
      let times = [first, first + Int.random(in: 0...gap, using: &generator)].map {
        Timestamp(nanoseconds: $0 * 1_000_000_000)
      }
      let timeline = Timeline(times, now: Timestamp(nanoseconds: .max))
      for period in PeriodRule.all {
        let kept = try timeline.kept(rule(period.path, 2))
        #expect(kept == period.kept(times, 2), "\(period.reason) \(times)")
      }
    }
  }

  @Test("keep-last counts points, keep-within from the newest back, both ends included")
  func lastAndWithin() throws {
    for times in Self.subsets {
      let timeline = Timeline(times, now: now)
      for count in [1, 2, 5, 6, 7, Int.max] {
        let expected = Set(times.indices.suffix(min(count, times.count)))
        #expect(try timeline.kept(rule(\.keepLast, count)) == expected)
      }
      for seconds in [1, 40 * 60, 86_400, 4 * 86_400 + 12 * 3600, 30 * 86_400, 1 << 40, Int.max] {
        let span = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let expected = times.indices.filter {
          span.overflow
            || times.last!.nanoseconds - times[$0].nanoseconds <= span.partialValue
        }
        let policy = rule(\.keepWithinSeconds, seconds)
        #expect(try timeline.kept(policy) == Set(expected), "\(seconds) \(times)")
      }
    }
  }

  @Test("Rules add up: a point says all that keep it, in a fixed order, for random policies")
  func union() throws {
    var generator = SeededGenerator(seed: 12)
    let paths: [WritableKeyPath<RetentionPolicy, Int?>] = [
      \.keepLast, \.keepHourly, \.keepDaily, \.keepWeekly, \.keepMonthly, \.keepYearly,
      \.keepWithinSeconds,
    ]
    let own: Set<KeepReason> = [.newest, .verified, .protected]
    for _ in 0..<400 {
      let times = Self.subsets.randomElement(using: &generator)!
      let timeline = Timeline(times, now: now)
      var policy = RetentionPolicy()
      var expected = times.map { _ in Set<KeepReason>() }
      for path in paths.shuffled(using: &generator).prefix(3) {
        let most = path == \.keepWithinSeconds ? 800_000 : 4
        let count = Int.random(in: 1...most, using: &generator)
        policy[keyPath: path] = count
        for (index, one) in try timeline.decisions(rule(path, count)).enumerated() {
          expected[index].formUnion(Set(one.keptBy).subtracting(own))
        }
      }
      let chosen = times.indices.randomElement(using: &generator)
      let decisions = try timeline.decisions(
        policy, protected: Set([chosen].compactMap { $0 }), verified: chosen)
      if let last = times.indices.last { expected[last].insert(.newest) }
      if let chosen { expected[chosen].formUnion([.verified, .protected]) }
      #expect(decisions.map { Set($0.keptBy) } == expected)
      for decision in decisions {
        #expect(decision.keptBy == KeepReason.allCases.filter(decision.keptBy.contains))
      }
    }
  }

  @Test("Without a rule, or with one that keeps nothing, nothing is decided")
  func noRule() {
    let timeline = Timeline(Self.instants, now: now)
    var zero = rule(\.keepLast, 3)
    zero.keepDaily = 0
    for policy in [RetentionPolicy(), zero, rule(\.keepWithinSeconds, -1)] {
      let error = #expect(throws: StrobeError.self) { try timeline.decisions(policy) }
      #expect(error?.reason == .usage)
    }
  }
}
