import CommandLineArguments
import Engine
import Platform

enum DiffCommand: Command {
  private static let old = Argument(
    "OLD", help: "The older point: COLLECTION@latest, @-N, @ID or @TIME")
  private static let new = Argument("NEW", help: "The newer point of the same collection")
  private static let disk = RepeatedOption(
    "disk", short: "d", value: "NAME", help: "Only this disk")

  static let declaration = CommandDeclaration(
    name: "diff", summary: "Show the byte ranges that changed between two points",
    discussion: """
      Ranges are whole chunks, merged, in rising order: 'changed' holds other content now, 'cleared' held \
      content and reads as zeros now.
      """,
    arguments: [old, new], options: [disk],
    examples: [
      Example("strobe diff web@-1 web@latest", ""),
      Example(
        "strobe diff web@-1 web@latest --disk data --json", "A change list for another program"),
    ],
    exitStatuses: [ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage")])

  private struct Output: Encodable {
    struct Range: Encodable {
      let kind: String
      let offset: Int
      let length: Int
    }

    struct Disk: Encodable {
      let name: String
      let oldSize: Int?
      let newSize: Int?
      let isReplaced: Bool
      let changedBytes: Int
      let clearedBytes: Int
      let ranges: [Range]
    }

    let collection: String
    let old: String
    let new: String
    let disks: [Disk]
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let difference = try Common.engine(values).difference(
      from: PointReference(values[old]), to: PointReference(values[new]), disks: values[disk],
      stop: Common.stop)
    if values[Common.json] {
      try Console.print(json: output(difference))
    } else {
      for disk in difference.disks { print(disk) }
    }
    return 0
  }

  private static func print(_ disk: DiskDifference) {
    Console.print(
      "Disk \(disk.name): \(Units.size(disk.changedBytes)) changed, \(Units.size(disk.clearedBytes)) cleared, "
        + Units.count(disk.ranges.count, "range") + note(disk))
    for range in disk.ranges {
      Console.print("  \(range.kind.rawValue)  \(range.offset)  \(range.length)")
    }
  }

  private static func note(_ disk: DiskDifference) -> String {
    if disk.oldSize == nil { return "; the older point has no such disk" }
    if disk.newSize == nil { return "; the newer point has no such disk" }
    var text = ""
    if let old = disk.oldSize, let new = disk.newSize, old != new {
      text += "; the size went from \(old) to \(new) bytes"
    }
    if disk.isReplaced { text += "; another disk took the name" }
    return text
  }

  private static func output(_ difference: PointDifference) -> Output {
    Output(
      collection: difference.new.collection, old: difference.old.id, new: difference.new.id,
      disks: difference.disks.map { disk in
        .init(
          name: disk.name, oldSize: disk.oldSize, newSize: disk.newSize,
          isReplaced: disk.isReplaced,
          changedBytes: disk.changedBytes, clearedBytes: disk.clearedBytes,
          ranges: disk.ranges.map {
            .init(kind: $0.kind.rawValue, offset: $0.offset, length: $0.length)
          })
      })
  }
}
