import CommandLineArguments
import Engine

enum GarbageCommand: Command {
  private static let dryRun = Flag("dry-run", help: "Only say what would be freed")

  static let declaration = CommandDeclaration(
    name: "gc", summary: "Free the space that no restore point needs",
    discussion: """
      Removes layers and segments that nothing names. Snapshots, restores and verifications may run \
      meanwhile. Segments that are partly in use stay whole.
      """,
    options: [dryRun],
    examples: [Example("strobe gc --dry-run", ""), Example("strobe gc", "")],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable {
    let dryRun: Bool
    let layers: Int
    let segments: Int
    let bytes: Int
    let inUse: Int
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let report = try Common.engine(values).collectGarbage(dryRun: values[dryRun], stop: Common.stop)
    if values[Common.json] {
      try Console.print(
        json: Output(
          dryRun: values[dryRun], layers: report.layers, segments: report.segments,
          bytes: report.bytes,
          inUse: report.inUse))
    } else if !values[Common.quiet] {
      Console.print(
        (values[dryRun] ? "Would free " : "Freed ")
          + "\(Units.size(report.bytes)): \(Units.count(report.layers, "layer")), "
          + Units.count(report.segments, "segment")
          + (report.inUse > 0 ? "; \(report.inUse) left because a snapshot is running" : "") + ".")
    }
    return 0
  }
}
