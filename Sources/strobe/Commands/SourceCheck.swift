import CommandLineArguments
import Engine

/// `strobe verify COLLECTION --against-source`.
enum SourceCheck {
  private struct Output: Encodable {
    struct Extent: Encodable {
      let offset: Int
      let length: Int
    }

    struct Disk: Encodable {
      let name: String
      let source: String
      let readBytes: Int
      let mayHaveBeenWritten: Bool
      let differences: [Extent]
    }

    let collection: String
    let point: String
    let isSame: Bool
    let disks: [Disk]
    let seconds: Double
  }

  /// Ranges that are told one by one.
  private static let shown = 20

  static func run(
    _ engine: SnapshotEngine, _ collection: String, workers: Int?, _ values: ParsedValues
  ) throws -> Int32 {
    let report = try ProgressLine.during("comparing", values) { progress in
      try engine.compareWithSource(
        collection, workerCount: workers, progress: progress, stop: Common.stop)
    }
    for disk in report.disks { tell(disk, collection) }
    if values[Common.json] {
      try Console.print(json: output(report, collection))
    } else if !values[Common.quiet] {
      for disk in report.disks where disk.differences.isEmpty {
        Console.print(
          "\(disk.name): \(Units.size(disk.readBytes)) of \(disk.source) are what "
            + "\(collection)@\(report.point.prefix(12)) says")
      }
    }
    return report.isSame ? 0 : 1
  }

  private static func tell(_ disk: SourceReport.Disk, _ collection: String) {
    for range in disk.differences.prefix(shown) {
      Console.error(
        "disk \(disk.name), bytes \(range.lowerBound) to \(range.upperBound - 1) of \(disk.source) differ"
      )
    }
    guard !disk.differences.isEmpty else { return }
    let bytes = disk.differences.reduce(0) { $0 + $1.count }
    Console.error(
      "disk \(disk.name): \(Units.size(bytes)) differ in "
        + Units.count(disk.differences.count, "range")
        + (disk.mayHaveBeenWritten
          ? "; it was written to meanwhile"
          : "; it was written to since the point, or the point is wrong")
        + ": for a proof freeze or unmount it, take a point, and compare again")
  }

  private static func output(_ report: SourceReport, _ collection: String) -> Output {
    Output(
      collection: collection, point: report.point, isSame: report.isSame,
      disks: report.disks.map { disk in
        .init(
          name: disk.name, source: disk.source, readBytes: disk.readBytes,
          mayHaveBeenWritten: disk.mayHaveBeenWritten,
          differences: disk.differences.map { .init(offset: $0.lowerBound, length: $0.count) })
      }, seconds: report.seconds)
  }
}
