import Engine
import Platform

@testable import CommandLineArguments
@testable import SnapshotRepository
@testable import strobe

// What a user types.

extension FuzzedParser {
  /// The words of a command line, one a line; the control byte is the width of the terminal.
  static let arguments = FuzzedParser("arguments") { input in
    let words = input.bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
    do throws(UsageError) {
      let invocation = try Program.declaration.parse(
        words, environment: ["STROBE_REPOSITORY": "/srv"], width: Int(input.control))
      guard case .command(let name, let values) = invocation else { return }
      let command = Program.declaration.commands.first { $0.name == name }
      require(command != nil, "a command that is found is declared")
      _ = values[Common.json]
    } catch {
      require(!"\(error)".isEmpty, "an error says something")
    }
  }

  /// One word as everything that a word can be.
  static let values = FuzzedParser("values") { input in
    let text = input.text
    _ = try? ValueFormat<Int>.wholeNumber().parse(text, "N")
    _ = try? ValueFormat<Assignment>.assignment.parse(text, "NAME=VALUE")
    if let size = try? ValueFormat<Int>.byteCount().parse(text, "SIZE") {
      let again = try? ValueFormat<Int>.byteCount().parse(showByteCount(size), "SIZE")
      require(again == size, "a size reads back")
      require(!Units.size(size).isEmpty, "a size can be shown")
    }
    if let span = try? ValueFormat<Duration>.duration().parse(text, "TIME") {
      let again = try? ValueFormat<Duration>.duration().parse(showDuration(span), "TIME")
      require(again == span, "a duration reads back")
    }
    if let time = Timestamp(text) {
      let whole = Timestamp(time.description)
      require(whole != nil, "a time reads back")
      let lost = time.nanoseconds - (whole?.nanoseconds ?? 0)
      require(0..<1_000_000 ~= lost, "a time is written to the millisecond")
    }
    if let reference = try? PointReference(text) {
      require(fault(reference.collection) == nil, "a reference names what can be a collection")
    }
    if fault(text) == nil {
      require(!text.utf8.contains(UInt8(ascii: "/")), "a name is a file's")
      require(text.utf8.count <= Names.longest, "a name is short")
    }
    require(!Names.quoted(text).utf8.contains(27), "a message holds no escape")
    if let id = ObjectID(text) { require(id.description == text, "an identity has one text") }
  }

  private static func fault(_ name: String) -> StrobeError? {
    do throws(StrobeError) {
      try Names.check(name, "collection")
      return nil
    } catch { return error }
  }
}

/// What `strobe list` makes of a row.
func show(_ point: PointSummary) {
  require(!Units.size(point.size).isEmpty, "a size can be shown")
  require(!point.created.description.isEmpty, "a time can be shown")
  if let milliseconds = point.freezeWindowMilliseconds {
    require(!Units.number(milliseconds, digits: 1).isEmpty, "a number can be shown")
  }
}
