import CommandLineArguments
import Engine

enum GarbageCommand: Command {
  private static let dryRun = Flag("dry-run", help: "Only say what would be freed")
  private static let maxUnused = Option(
    "max-unused", value: "PERCENT",
    help:
      "What may be dead of a segment before it is written again, where parts can't be freed: 10%")
  private static let dropUnfinished = Flag(
    "drop-unfinished",
    help: "Also free what interrupted snapshots stored; otherwise the next one goes on with it")

  static let declaration = CommandDeclaration(
    name: "gc", summary: "Free the space that no restore point needs",
    discussion: """
      Merges layers that no point separates any more, removes layers and segments that nothing names, and \
      frees the parts of segments that no point needs: in place where the file system can punch holes, \
      else by writing the segment again. Snapshots, restores and verifications may run meanwhile; it may be \
      interrupted at any time.

      What an interrupted snapshot stored is kept for a week, so that the next one stores nothing twice.
      """,
    options: [dryRun, dropUnfinished, maxUnused],
    examples: [
      Example("strobe gc --dry-run", "What would come free"), Example("strobe gc", ""),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable {
    let dryRun: Bool
    let layers: Int
    let segments: Int
    let mergedLayers: Int
    let rewrittenSegments: Int
    let bytes: Int
    let partBytes: Int
    let inUse: Int
    let unfinishedBytes: Int
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let share = try values[maxUnused].map { text throws in
      try Units.share(text, option: "--max-unused")
    }
    let report = try Common.engine(values).collectGarbage(
      dryRun: values[dryRun], dropsUnfinished: values[dropUnfinished], maxUnused: share ?? 0.1,
      stop: Common.stop)
    for warning in report.warnings { Console.warning(warning) }
    if values[Common.json] {
      try Console.print(
        json: Output(
          dryRun: values[dryRun], layers: report.layers, segments: report.segments,
          mergedLayers: report.mergedLayers, rewrittenSegments: report.rewrittenSegments,
          bytes: report.bytes, partBytes: report.partBytes, inUse: report.inUse,
          unfinishedBytes: report.unfinishedBytes))
    } else if !values[Common.quiet] {
      Console.print(sentence(report, isDryRun: values[dryRun]))
    }
    return 0
  }

  private static func sentence(_ report: GarbageReport, isDryRun: Bool) -> String {
    var parts = [Units.count(report.layers, "layer"), Units.count(report.segments, "segment")]
    if report.partBytes > 0 {
      parts.append("\(Units.size(report.partBytes)) of segments that stay")
    }
    if report.mergedLayers > 0 { parts.append("\(report.mergedLayers) layers merged") }
    if report.rewrittenSegments > 0 {
      parts.append("\(Units.count(report.rewrittenSegments, "segment")) written again")
    }
    return (isDryRun ? "Would free " : "Freed ") + Units.size(report.bytes) + ": "
      + parts.joined(separator: ", ")
      + (report.inUse > 0 ? "; \(report.inUse) left because they are in use" : "")
      + (report.unfinishedBytes > 0
        ? "; \(Units.size(report.unfinishedBytes)) of interrupted snapshots are kept for the next one"
        : "") + "."
  }
}
