import Glibc
import Platform

/// What a pass calls its nodes, jobs and exports in QEMU, and its folder: `strobe-COLLECTION-OWNER-KIND`.
///
/// The name tells whether who made it still lives: the owner is a process's number and its start time. QEMU
/// takes at most 31 bytes for a node.
package struct PassNames: Sendable, Equatable {
  static let prefix = "strobe-"
  package static let longest = 31

  /// The first digits of the collection's id.
  package let collection: String
  package let owner: ProcessMark

  package enum Kind: String {
    case filter = "c"
    /// The image that a filter or a job fills.
    case overlay = "o"
    /// The filter's own view of the instant, and the export that tells whether it gave up.
    case access = "s"
    case sentinel = "p"
    case job = "j"
    case export = "e"
  }

  package init(collection: String, owner: ProcessMark = .own) {
    self.collection = String(collection.prefix(8))
    self.owner = owner
  }

  package var stem: String { "\(Self.prefix)\(collection)-\(owner.text)" }

  package func name(_ kind: Kind, _ disk: Int) -> String { "\(stem)-\(kind.rawValue)\(disk)" }

  /// - Returns: nil when no pass gave that name.
  package init?(reading name: String) {
    let parts = name.split(separator: "-", omittingEmptySubsequences: false)
    guard name.utf8.count <= Self.longest, (3...4).contains(parts.count), parts[0] == "strobe",
      parts[1].utf8.count == 8, let owner = ProcessMark(reading: parts[2])
    else { return nil }
    collection = String(parts[1])
    self.owner = owner
  }

  package static func kind(of name: String) -> Kind? {
    guard PassNames(reading: name) != nil, let last = name.split(separator: "-").last,
      let letter = last.first
    else { return nil }
    return Kind(rawValue: String(letter))
  }
}

/// Tells a process from another one that got its number later.
package struct ProcessMark: Sendable, Equatable {
  package let process: Int
  /// Clock ticks from the boot to its start; the last digits.
  let start: Int

  private static let startLimit = 36 * 36 * 36 * 36

  package static var own: ProcessMark { ProcessMark(of: Int(getpid()))! }

  /// - Returns: nil when there is no such process.
  init?(of process: Int) {
    guard let text = readText("/proc/\(process)/stat"), let end = text.lastIndex(of: ")") else {
      return nil
    }
    // proc_pid_stat(5): field 22, and the third one follows the name.
    let fields = text[text.index(after: end)...].split(separator: " ")
    guard fields.count > 19, let start = Int(fields[19]) else { return nil }
    self.process = process
    self.start = start % Self.startLimit
  }

  package init?(reading text: Substring) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2, let process = Int(parts[0], radix: 36), process > 0,
      let start = Int(parts[1], radix: 36), start >= 0
    else { return nil }
    self.process = process
    self.start = start
  }

  var text: String { String(process, radix: 36) + "." + String(start, radix: 36) }

  package var isAlive: Bool { ProcessMark(of: process) == self }
}
