import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// What clocks do to a timeline: nothing may go that would stay if they had been right.
@Suite("Retention when clocks jump")
struct RetentionClockTests {
  private static let right = RetentionTests.instants
  private static let now = time("2026-01-05T13:00Z")
  private static let future = [
    "2026-01-05T13:00:00.001Z", "2031-06-01T00:00Z", "2262-01-01T00:00Z",
  ]
  .map(time)

  private static let policies: [RetentionPolicy] =
    [
      \.keepHourly, \.keepDaily, \.keepWeekly, \.keepMonthly, \.keepYearly, \.keepLast,
    ].flatMap { path in (1...4).map { rule(path, $0) } }
    + [1, 3600, 86_400, 5 * 86_400, 8 * 86_400, 400 * 86_400].map { rule(\.keepWithinSeconds, $0) }

  private func expectNothingLost(
    _ wrong: [Timestamp], now: Timestamp = now, than right: [Timestamp] = right
  ) throws {
    for policy in Self.policies {
      let kept = try Timeline(wrong, now: now).kept(policy)
      let ought = try Timeline(right, now: Self.now).kept(policy)
      #expect(kept.isSuperset(of: ought), "\(policy): \(wrong)")
    }
  }

  @Test("Times in the future, of any subset of the points, lose nothing")
  func futureTimes() throws {
    for mask in 0..<64 {
      for shift in 0..<3 {
        let wrong = Self.right.indices.map { index in
          mask >> index & 1 == 0 ? Self.right[index] : Self.future[(index + shift) % 3]
        }
        try expectNothingLost(wrong)
      }
    }
  }

  @Test("One time in the past, of any point that has two before it, loses nothing")
  func pastTimes() throws {
    for index in 2..<6 {
      for past in ["1970-01-01T00:00Z", "2024-02-29T12:00Z", "2025-12-28T23:29Z"].map(time) {
        var wrong = Self.right
        wrong[index] = past
        let decisions = try Timeline(wrong, now: Self.now).decisions(rule(\.keepLast, 1))
        #expect(decisions.map(\.isTimeInDoubt) == wrong.indices.map { $0 == index })
        try expectNothingLost(wrong)
      }
    }
  }

  @Test("A clock that is behind now, at any moment, loses nothing")
  func clockBehind() throws {
    for now in Self.right + ["1970-01-01T00:00Z", "2025-12-30T00:00Z"].map(time) {
      try expectNothingLost(Self.right, now: now)
    }
    // Before all points: every time is in doubt, and only a number of points removes any.
    let timeline = Timeline(Self.right, now: time("1970-01-01T00:00Z"))
    for policy in Self.policies where policy.keepLast == nil {
      #expect(try timeline.kept(policy).count == 6)
    }
  }

  @Test("A clock that is ahead now changes nothing while the points' times are right")
  func clockAhead() throws {
    for policy in Self.policies {
      for now in Self.future {
        #expect(
          try Timeline(Self.right, now: now).kept(policy)
            == Timeline(Self.right, now: Self.now).kept(policy))
      }
    }
  }

  @Test("Random timelines with random times in the future lose nothing")
  func random() throws {
    var generator = SeededGenerator(seed: 13)
    for _ in 0..<100 {
      var seconds = 1_700_000_000
      let right = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        seconds += [600, 40_000, 90_000, 700_000].randomElement(using: &generator)!
        return Timestamp(nanoseconds: seconds * 1_000_000_000)
      }
      let now = right.last!
      let share = Double.random(in: 0...1, using: &generator)
      let wrong = right.map { time in
        guard Double.random(in: 0..<1, using: &generator) < share else { return time }
        let ahead = Int.random(in: 1...2_000_000_000, using: &generator)
        return Timestamp(nanoseconds: now.nanoseconds + ahead * 1_000_000_000)
      }
      for policy in Self.policies {
        let ought = try Timeline(right, now: now).kept(policy)
        #expect(try Timeline(wrong, now: now).kept(policy).isSuperset(of: ought))
      }
    }
  }

  @Test("A point whose time is wrong goes when enough points with right times are newer")
  func agesOut() throws {
    // One a day for 20 days; the sixth says 2031, the eighth 1970.
    var times = (1...20).map { time("2026-03-\($0 < 10 ? "0" : "")\($0)T08:00Z") }
    times[5] = time("2031-01-01T00:00Z")
    times[7] = time("1970-01-01T00:00Z")
    let timeline = Timeline(times, now: time("2026-03-20T09:00Z"))
    #expect(try timeline.kept(rule(\.keepDaily, 3)) == [17, 18, 19])
    #expect(try timeline.kept(rule(\.keepWithinSeconds, 5 * 86_400)) == [14, 15, 16, 17, 18, 19])
    // Where its neighbours lie in one period, so does it.
    #expect(try timeline.kept(rule(\.keepMonthly, 3)) == [19])
    // While in doubt it stays, and takes no other's place.
    #expect(try timeline.kept(rule(\.keepDaily, 13)) == Set(6...19))
    #expect(try timeline.kept(rule(\.keepDaily, 15)) == Set(3...19))
  }

  @Test("Equal times are in order, and the later point stands for the period")
  func equalTimes() throws {
    let timeline = Timeline(Array(repeating: Self.right[0], count: 4), now: Self.now)
    #expect(try timeline.decisions(rule(\.keepHourly, 2)).allSatisfy { !$0.isTimeInDoubt })
    #expect(try timeline.kept(rule(\.keepHourly, 2)) == [3])
    #expect(try timeline.kept(rule(\.keepWithinSeconds, 1)) == [0, 1, 2, 3])
  }

  /// Of this thread; what else the machine does takes none.
  private func processorSeconds() -> Int {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return time.tv_sec
  }

  @Test("Thirty thousand points are decided in a moment")
  func many() throws {
    var seconds = 1_500_000_000
    let times = (0..<30_000).map { index in
      seconds += index % 1000 == 7 ? -50_000 : 900
      return Timestamp(nanoseconds: seconds * 1_000_000_000)
    }
    var policy = rule(\.keepHourly, 48)
    policy.keepYearly = 100
    let timeline = Timeline(times, now: times.last!)
    let start = processorSeconds()
    #expect(try timeline.kept(policy).count >= 48)
    #expect(processorSeconds() - start < 5)
  }
}
