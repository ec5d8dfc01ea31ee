import CommandLineArguments
import Engine
import Platform

enum VerifyCommand: Command {
  private static let what = OptionalArgument(
    "WHAT",
    help:
      "A COLLECTION, or one point: COLLECTION@latest, @-N, @ID or @TIME; everything unless given")
  private static let workers = Option(
    "workers", value: "N", help: "Threads; one a processor unless given")

  private static let sample = Option(
    "sample", value: "PERCENT", help: "Read back only so much, chosen at random: 5%")
  private static let maxDuration = Option(
    "max-duration", value: "DURATION",
    help: "Stop after so long; the next verification goes on with what was checked longest ago: 30m"
  )

  private static let againstSource = Flag(
    "against-source",
    help: "Compare the newest point of COLLECTION with its disks, which should be at rest")

  static let declaration = CommandDeclaration(
    name: "verify", summary: "Read everything back and check it",
    discussion: """
      Reads each stored chunk that a point needs once and compares it with its fingerprint; checks every \
      document and layer. What is damaged is named with all points, the disk and the bytes that it affects, \
      and remembered: the next snapshot whose disk still holds the same content there stores it again, and \
      'strobe heal' gets it from another repository. Points that are not named are not affected.
      """,
    arguments: [what], options: [sample, maxDuration, againstSource, workers],
    examples: [
      Example("strobe verify", ""), Example("strobe verify web@latest", "What one point needs"),
      Example("strobe verify web --max-duration 30m", "A part every night, oldest first"),
      Example("strobe verify --sample 5%", "A quick look"),
      Example("strobe verify web --against-source", "Is the newest point what the disks hold?"),
    ],
    exitStatuses: [
      ExitStatus(0, "Everything is as it was stored"),
      ExitStatus(1, "Something is damaged or differs, or it failed"),
      ExitStatus(2, "Wrong usage"),
    ])

  private struct Output: Encodable {
    struct Finding: Encodable {
      let points: [String]
      let disk: String?
      let offset: Int?
      let length: Int?
      let message: String
    }

    let points: Int
    let segments: Int
    let checkedSegments: Int
    let isCutShort: Bool
    let chunks: Int
    let bytes: Int
    let damage: [Finding]
    let seconds: Double
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let engine = try Common.engine(values)
    let options = try options(values)
    if values[againstSource] {
      guard let collection = values[what], !collection.contains("@") else {
        throw UsageError(
          "--against-source wants a COLLECTION", advice: "its newest point is compared")
      }
      return try SourceCheck.run(engine, collection, workers: options.workerCount, values)
    }
    let report = try ProgressLine.during("verifying", values) { progress in
      guard let text = values[what], text.contains("@") else {
        return try engine.verify(
          collection: values[what], options, progress: progress, stop: Common.stop)
      }
      return try engine.verify(
        point: PointReference(text), options, progress: progress, stop: Common.stop)
    }
    for warning in report.warnings { Console.warning(warning) }
    for damage in report.damage {
      let place = damage.disk.map { disk in
        ", disk \(disk)"
          + (damage.range.map { ", bytes \($0.lowerBound) to \($0.upperBound - 1)" } ?? "")
      }
      Console.error("\(names(damage.points))\(place ?? ""): \(damage.error.message)")
    }
    if report.damage.contains(where: { $0.disk != nil && $0.range == nil }) {
      Console.error(
        "a damaged layer is got back with: strobe heal --from REPOSITORY; the next snapshot of the "
          + "collection starts a new chain")
    }
    if report.damage.contains(where: { $0.disk == nil }) {
      Console.error(
        "a damaged document is got back by copying the file from a copy of the repository")
    }
    if report.damage.contains(where: { $0.range != nil }) {
      Console.error(
        "points that are not named restore as they were; the next snapshot stores again what its disk still "
          + "holds; else: strobe heal --from REPOSITORY, or restore with --allow-damaged")
    }
    if values[Common.json] {
      try Console.print(json: output(report))
    } else if !values[Common.quiet] {
      Console.print(summary(report, isSample: values[sample] != nil))
    }
    return report.damage.isEmpty ? 0 : 1
  }

  private static func options(_ values: ParsedValues) throws -> VerifyOptions {
    var options = VerifyOptions()
    options.workerCount = try values.parse(workers, as: .wholeNumber(in: 1...256))
    options.sample = try values[sample].map { text throws in
      try Units.share(text, option: "--sample")
    }
    if options.sample == 0 {
      throw UsageError("--sample 0 reads nothing", advice: "write it like 5% or 0.05")
    }
    let span = try values.parse(
      maxDuration, as: .duration(in: .seconds(1) ... .seconds(365 * 86_400)))
    options.maxSeconds = span.map { Double($0.components.seconds) }
    return options
  }

  private static func summary(_ report: VerifyReport, isSample: Bool) -> String {
    let isPart = report.isCutShort || isSample
    let good =
      report.checkedChunks == 0 && isPart
      ? "no content was read"
      : isPart ? "what was read is as it was stored" : "everything is as it was stored"
    let part =
      report.isCutShort
      ? "; \(report.checkedSegments) of \(Units.count(report.segmentCount, "segment")), go on with the same command"
      : ""
    return
      "\(Units.count(report.pointCount, "point")), \(Units.count(report.checkedChunks, "chunk")), "
      + "\(Units.size(report.checkedBytes)) checked in \(Units.duration(report.seconds)): "
      + (report.damage.isEmpty ? good : "\(report.damage.count) damaged") + part
  }

  /// The points of a damage: all where they are few.
  private static func names(_ points: [String]) -> String {
    guard points.count > 4 else { return points.joined(separator: ", ") }
    return "\(points[0]), \(points[1]) … \(points[points.count - 1]) (\(points.count) points)"
  }

  private static func output(_ report: VerifyReport) -> Output {
    Output(
      points: report.pointCount, segments: report.segmentCount,
      checkedSegments: report.checkedSegments, isCutShort: report.isCutShort,
      chunks: report.checkedChunks, bytes: report.checkedBytes,
      damage: report.damage.map {
        .init(
          points: $0.points, disk: $0.disk, offset: $0.range?.lowerBound, length: $0.range?.count,
          message: $0.error.message)
      }, seconds: report.seconds)
  }
}
