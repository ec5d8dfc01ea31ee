public import Platform

// Which points a policy keeps. The walk goes from the newest point to the oldest by `sequence`, never by
// time, because clocks jump. A time is *in doubt* when it lies after now, or isn't in the longest series of
// points whose times rise with their sequence: the least number of times that must be wrong. In doubt:
//
// - A point in doubt takes no period's place from others. It is kept by a period rule whose places aren't
//   all taken by newer points, unless its neighbours whose times are not in doubt lie in one period: then
//   it lies there too, and the newer of them stands for it.
// - `within` counts back from the newest point whose time is not in doubt, which is at most now. A point is
//   as young as it can be: as the youngest point before it, and, in doubt, as the next one after it.
//
// So whatever was kept if all clocks had been right is kept, as long as every time that is not in doubt is
// right. Times in the future of now are always found out, a single wrong time is if it is out of order with two
// points before it. What nobody can tell: a wrong time that is in order (of the oldest point, say), and a
// jump ahead of points and now together. And pruning thins out the right times: several wrong ones may outnumber
// the few that are left before them; then these are in doubt and stay, and the wrong ones take a place each.

extension RetentionPolicy {
  /// What goes and what stays.
  ///
  /// - Parameter points: in order of `sequence`, oldest first.
  /// - Returns: a decision for each point, in the same order. Time and memory grow with the number of points.
  /// - Throws: `usage` when the policy has no rule, or one that keeps nothing.
  public func decisions(
    _ points: [PointSummary], _ facts: RetentionFacts
  ) throws(StrobeError) -> [RetentionDecision] {
    try check()
    let times = PointTimes(points.map(\.created), now: facts.now)
    var walks = periods.map { PeriodWalk($0.period, count: $0.count) }
    var decisions: [RetentionDecision] = []
    decisions.reserveCapacity(points.count)
    for index in points.indices.reversed() {
      let point = points[index]
      var reasons: Set<KeepReason> = []
      if index == points.count - 1 { reasons.insert(.newest) }
      if point.id == facts.newestVerified { reasons.insert(.verified) }
      if facts.protected.contains(point.id) { reasons.insert(.protected) }
      if points.count - index <= keepLast ?? 0 { reasons.insert(.last) }
      if let span = keepWithinSeconds, times.isWithin(span, index) { reasons.insert(.within) }
      for place in walks.indices where walks[place].keeps(index, times) {
        reasons.insert(walks[place].period.reason)
      }
      decisions.append(
        RetentionDecision(
          point: point, keptBy: KeepReason.allCases.filter(reasons.contains),
          isTimeInDoubt: times.isInDoubt[index]))
    }
    return decisions.reversed()
  }
}

/// How far the walk of one period rule has come.
private struct PeriodWalk {
  let period: CalendarPeriod
  /// Periods that may still be given a point.
  private var rest: Int
  /// The period of the last point whose time isn't in doubt.
  private var last: Int?

  init(_ period: CalendarPeriod, count: Int) {
    self.period = period
    rest = count
  }

  mutating func keeps(_ index: Int, _ times: PointTimes) -> Bool {
    guard rest > 0 else { return false }
    if times.isInDoubt[index] {
      guard let last, let older = times.older[index] else { return true }
      return period.number(of: older) != last
    }
    let number = period.number(of: times.times[index])
    guard number != last else { return false }
    last = number
    rest -= 1
    return true
  }
}

/// The times of the points of a collection, oldest first, and how far they can be believed.
struct PointTimes {
  let times: [Timestamp]
  let isInDoubt: [Bool]
  /// For each point the time of the nearest older one that isn't in doubt.
  let older: [Timestamp?]
  /// For each point the youngest that it can be; nil: no bound.
  private let youngest: [Timestamp?]
  private let reference: Timestamp

  init(_ times: [Timestamp], now: Timestamp) {
    self.times = times
    let isInDoubt = Self.doubts(times, now)
    self.isInDoubt = isInDoubt
    reference = times.indices.last { !isInDoubt[$0] }.map { times[$0] } ?? now

    var older: [Timestamp?] = []
    var highest: [Timestamp] = []
    var last: Timestamp?
    var most = Timestamp(nanoseconds: .min)
    for (time, isInDoubt) in zip(times, isInDoubt) {
      older.append(last)
      if !isInDoubt { last = time }
      if time <= now { most = max(most, time) }
      highest.append(most)
    }
    self.older = older

    var youngest: [Timestamp?] = Array(repeating: nil, count: times.count)
    var newer: Timestamp?
    for index in times.indices.reversed() {
      if !isInDoubt[index] { newer = times[index] }
      youngest[index] = newer.map { max($0, highest[index]) }
    }
    self.youngest = youngest
  }

  /// Whether a point may have been taken in the last `seconds`.
  func isWithin(_ seconds: Int, _ index: Int) -> Bool {
    let (span, isEndless) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let (cut, isBeyond) = reference.nanoseconds.subtractingReportingOverflow(span)
    guard !isEndless, !isBeyond, let youngest = youngest[index] else { return true }
    return youngest.nanoseconds >= cut
  }

  /// All but the longest series of points whose times don't fall, none after now.
  private static func doubts(_ times: [Timestamp], _ now: Timestamp) -> [Bool] {
    // Patience sorting: ends[n] is the point with the least time that ends a series of n + 1.
    var ends: [Int] = []
    var before: [Int?] = Array(repeating: nil, count: times.count)
    for (index, time) in times.enumerated() where time <= now {
      var low = 0
      var high = ends.count
      while low < high {
        let middle = (low + high) / 2
        if times[ends[middle]] <= time { low = middle + 1 } else { high = middle }
      }
      before[index] = low > 0 ? ends[low - 1] : nil
      if low < ends.count { ends[low] = index } else { ends.append(index) }
    }
    var isInDoubt = Array(repeating: true, count: times.count)
    var next = ends.last
    while let index = next {
      isInDoubt[index] = false
      next = before[index]
    }
    return isInDoubt
  }
}
