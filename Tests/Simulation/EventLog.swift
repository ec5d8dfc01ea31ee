import Glibc
import Platform
import SnapshotRepository

/// What happened in a world, line by line. Two runs of a seed have the same digest.
struct EventLog {
  private(set) var lines: [String] = []
  private(set) var digest: UInt64 = 0
  private let folder: String
  private let echo: Bool

  init(folder: String, echo: Bool) {
    self.folder = folder
    self.echo = echo
  }

  /// - Parameters:
  ///   - text: what every run of the seed says.
  ///   - detail: for the reader: messages with process ids and the machine's own times.
  mutating func add(_ text: String, detail: String = "") {
    mix(text)
    let line = detail.isEmpty ? text : text + "   # " + shortened(detail)
    lines.append(line)
    if echo { print(line) }
  }

  /// Adds what is too long to print.
  mutating func mix(_ text: String) {
    digest = checksum64(Array("\(digest) \(text)".utf8))
  }

  func shortened(_ text: String) -> String {
    var parts: [Substring] = []
    var rest = text[...]
    while let range = rest.firstRange(of: folder) {
      parts.append(rest[..<range.lowerBound])
      rest = rest[range.upperBound...]
    }
    parts.append(rest)
    return parts.joined(separator: "~")
  }
}

extension StrobeError {
  /// The kind of failure, the same in every run of a seed.
  var kind: String {
    switch reason {
    case .usage: "usage"
    case .notFound: "notFound"
    case .exists: "exists"
    case .busy: "busy"
    case .refused: "refused"
    case .damaged: "damaged"
    case .system(let errno, _, _): "errno \(errno)"
    case .newerVersion: "newerVersion"
    case .cancelled: "cancelled"
    }
  }
}
