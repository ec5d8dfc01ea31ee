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

  static let declaration = CommandDeclaration(
    name: "verify", summary: "Read everything back and check it",
    discussion: """
      Reads each stored chunk once and compares it with its fingerprint; checks every document and layer \
      that a point needs. What is damaged is named with the point, the disk and the bytes that it affects.
      """,
    arguments: [what], options: [workers],
    examples: [Example("strobe verify", ""), Example("strobe verify web@latest", "")],
    exitStatuses: [
      ExitStatus(0, "Everything is as it was stored"),
      ExitStatus(1, "Something is damaged, or it failed"),
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
    let chunks: Int
    let bytes: Int
    let damage: [Finding]
    let seconds: Double
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let engine = try Common.engine(values)
    let count = try values.parse(workers, as: .wholeNumber(in: 1...256))
    let report = try ProgressLine.during("verifying", values) { progress in
      guard let text = values[what], text.contains("@") else {
        return try engine.verify(
          collection: values[what], workerCount: count, progress: progress, stop: Common.stop)
      }
      return try engine.verify(
        point: PointReference(text), workerCount: count, progress: progress, stop: Common.stop)
    }
    for damage in report.damage {
      let place = damage.disk.map { disk in
        ", disk \(disk)"
          + (damage.range.map { ", bytes \($0.lowerBound) to \($0.upperBound - 1)" } ?? "")
      }
      Console.error("\(names(damage.points))\(place ?? ""): \(damage.error.message)")
    }
    if !report.damage.isEmpty {
      Console.error(
        "points that are not named restore as they were; for a good new one: strobe snapshot"
          + " COLLECTION --full")
    }
    if values[Common.json] {
      try Console.print(json: output(report))
    } else if !values[Common.quiet] {
      Console.print(
        "\(Units.count(report.pointCount, "point")), \(Units.count(report.checkedChunks, "chunk")), "
          + "\(Units.size(report.checkedBytes)) checked in \(Units.duration(report.seconds)): "
          + (report.damage.isEmpty
            ? "everything is as it was stored" : "\(report.damage.count) damaged"))
    }
    return report.damage.isEmpty ? 0 : 1
  }

  /// The points of a damage: all where they are few.
  private static func names(_ points: [String]) -> String {
    guard points.count > 4 else { return points.joined(separator: ", ") }
    return "\(points[0]), \(points[1]) … \(points[points.count - 1]) (\(points.count) points)"
  }

  private static func output(_ report: VerifyReport) -> Output {
    Output(
      points: report.pointCount, chunks: report.checkedChunks, bytes: report.checkedBytes,
      damage: report.damage.map {
        .init(
          points: $0.points, disk: $0.disk, offset: $0.range?.lowerBound, length: $0.range?.count,
          message: $0.error.message)
      }, seconds: report.seconds)
  }
}
