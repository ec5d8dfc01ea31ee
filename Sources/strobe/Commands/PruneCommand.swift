import CommandLineArguments
import Engine
import SnapshotRepository

enum PruneCommand: Command {
  private static let collection = Argument("COLLECTION", help: "Whose points")
  private static let last = Option("keep-last", value: "N", help: "Keep the last N points")
  private static let hourly = Option(
    "keep-hourly", value: "N", help: "Keep the newest point of each of the last N hours with one")
  private static let daily = Option("keep-daily", value: "N", help: "The same by days")
  private static let weekly = Option(
    "keep-weekly", value: "N", help: "The same by weeks, which begin on Monday")
  private static let monthly = Option("keep-monthly", value: "N", help: "The same by months")
  private static let yearly = Option("keep-yearly", value: "N", help: "The same by years")
  private static let within = Option(
    "keep-within", value: "DURATION",
    help: "Keep what was taken in this span before the newest point: 36h, 30d, 8w, 1y (365d)")
  private static let dryRun = Flag("dry-run", help: "Only say what would be removed")

  static let declaration = CommandDeclaration(
    name: "prune", summary: "Remove the restore points that no rule keeps",
    discussion: """
      At least one rule is needed; a point stays when any rule keeps it. Times are UTC. The newest point, the newest \
      that a verification read back whole, and protected ones (strobe protect) always stay, and so do points \
      that can't be read. Points that another \
      command reads or continues are left for the next time. It may be interrupted at any moment.

      Points follow one another in the order in which they were taken, whatever the clock said. One whose time \
      can't be right (marked '?') takes no other's place and is kept while in doubt.

      The space comes back with 'strobe gc'.
      """,
    arguments: [collection],
    options: [last, hourly, daily, weekly, monthly, yearly, within, dryRun],
    examples: [
      Example("strobe prune web --keep-last 10 --keep-daily 7 --keep-weekly 8 --dry-run", ""),
      Example("strobe prune web --keep-within 30d --keep-monthly 12 && strobe gc", ""),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed; what was removed before stays removed"),
      ExitStatus(2, "Wrong usage"),
      ExitStatus(
        3, "Done, but points were left that are in use, were just protected, or can't be read"),
      ExitStatus(130, "Interrupted; what was removed before stays removed"),
    ])

  private struct Output: Encodable {
    struct Point: Encodable {
      let id: String
      let sequence: Int
      let created: String
      let consistency: String
      let action: String
      let keptBy: [KeepReason]
      let timeInDoubt: Bool
    }

    struct Unreadable: Encodable {
      let id: String
      let message: String
    }

    let collection: String
    let dryRun: Bool
    let points: [Point]
    let unreadable: [Unreadable]
    let kept: Int
    let removed: Int
    let left: Int
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let policy = try policy(values)
    let report = try Common.engine(values).prune(
      values[collection], policy, dryRun: values[dryRun], stop: Common.stop)
    if values[Common.json] {
      try print(json: report)
    } else if !values[Common.quiet] {
      print(report)
    }
    for error in report.unreadable { Console.warning("left as it is: \(error.message)") }
    for point in report.points where point.outcome == .held || point.outcome == .protected {
      Console.warning(
        "\(name(report, point)) was left: "
          + (point.outcome == .held
            ? "another command reads or continues it" : "it was protected meanwhile"))
    }
    return report.left > 0 || !report.unreadable.isEmpty ? 3 : 0
  }

  private static func policy(_ values: ParsedValues) throws -> RetentionPolicy {
    var policy = RetentionPolicy()
    policy.keepLast = try values.parse(last, as: .count)
    policy.keepHourly = try values.parse(hourly, as: .count)
    policy.keepDaily = try values.parse(daily, as: .count)
    policy.keepWeekly = try values.parse(weekly, as: .count)
    policy.keepMonthly = try values.parse(monthly, as: .count)
    policy.keepYearly = try values.parse(yearly, as: .count)
    let span = try values.parse(within, as: .duration(in: .seconds(1) ... .seconds(Int64.max)))
    policy.keepWithinSeconds = span.map { Int($0.components.seconds) }
    guard policy != RetentionPolicy() else {
      throw UsageError(
        "no rule says which restore points to keep",
        advice: "give at least one, such as --keep-last 10; see strobe prune --help")
    }
    return policy
  }

  private static func name(_ report: PruneReport, _ point: PruneReport.Point) -> String {
    "\(report.collection)@\(point.decision.point.id.prefix(12))"
  }

  private static func print(json report: PruneReport) throws {
    try Console.print(
      json: Output(
        collection: report.collection, dryRun: report.dryRun,
        points: report.points.map {
          let point = $0.decision.point
          return .init(
            id: point.id, sequence: point.sequence, created: point.created.description,
            consistency: point.consistency.rawValue, action: $0.outcome.action,
            keptBy: $0.decision.keptBy, timeInDoubt: $0.decision.isTimeInDoubt)
        },
        unreadable: zip(report.unreadableIDs, report.unreadable).map {
          .init(id: $0, message: $1.message)
        },
        kept: report.count(.kept), removed: report.count(.removed), left: report.left))
  }

  private static func print(_ report: PruneReport) {
    var table = Table(["POINT", "TIME", "CONSISTENCY", "ACTION", "KEPT BY"])
    for point in report.points {
      let summary = point.decision.point
      table.add([
        name(report, point),
        summary.created.description + (point.decision.isTimeInDoubt ? "?" : ""),
        summary.consistency.rawValue, point.outcome.action,
        point.decision.keptBy.map(\.rawValue).joined(separator: ", "),
      ])
    }
    for id in report.unreadableIDs {
      table.add(["\(report.collection)@\(id.prefix(12))", "", "", "keep", "it can't be read"])
    }
    if report.points.isEmpty && report.unreadable.isEmpty {
      Console.print("\(report.collection) has no restore points.")
      return
    }
    table.print()
    let removed = report.count(.removed)
    Console.print("")
    Console.print(
      (report.dryRun ? "Would remove " : "Removed ") + "\(Units.count(removed, "point")), "
        + "\(report.count(.kept) + report.left + report.unreadable.count) stay"
        + (removed > 0 ? "; 'strobe gc' frees the space." : "."))
  }
}

extension PruneOutcome {
  fileprivate var action: String {
    switch self {
    case .kept: "keep"
    case .removed: "remove"
    case .held: "held"
    case .protected: "protected"
    }
  }
}

extension PruneReport {
  fileprivate func count(_ outcome: PruneOutcome) -> Int {
    points.count { $0.outcome == outcome }
  }

  /// How many points no rule keeps, and which are there all the same.
  fileprivate var left: Int { count(.held) + count(.protected) }
}
