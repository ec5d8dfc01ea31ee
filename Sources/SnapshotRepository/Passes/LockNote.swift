import Glibc
import Platform

/// What the holder of a lock says of itself, as the text of the lock's file:
/// `snapshot of web (process 4711 on backup1, since 2026-11-21T08:15:30.250Z)`.
///
/// For people: who may do what is decided by the kernel's locks alone.
package struct LockNote: Sendable, Equatable, CustomStringConvertible {
  /// `snapshot`, `gc`, …
  package let activity: String
  package let collection: String?
  package let process: Int
  /// The host's name, where it has one.
  package let host: String?
  package let since: Timestamp

  package init(
    _ activity: String, of collection: String? = nil, process: Int, host: String?, since: Timestamp
  ) {
    precondition(!activity.contains(" of ") && !activity.contains("("))
    self.activity = activity
    self.collection = collection
    self.process = process
    self.host = host
    self.since = since
  }

  /// What this process does from now on.
  package init(_ activity: String, of collection: String? = nil) {
    self.init(
      activity, of: collection, process: Int(getpid()), host: Self.hostName(), since: .now)
  }

  package var description: String {
    activity + (collection.map { " of \($0)" } ?? "") + " (process \(process)"
      + (host.map { " on \($0)" } ?? "") + ", since \(since))"
  }

  /// Reads a description; nil when it is none.
  package init?(reading text: String) {
    guard text.hasSuffix(")"), let facts = text.lastRange(of: " (process ") else { return nil }
    let what = text[..<facts.lowerBound]
    let who = text[facts.upperBound...].dropLast()
    guard let comma = who.lastRange(of: ", since "), let since = Timestamp(who[comma.upperBound...])
    else { return nil }
    let place = who[..<comma.lowerBound].split(separator: " ")
    guard let process = place.first.flatMap({ Int($0) }), process > 0,
      place.count == 1 || place.count == 3 && place[1] == "on"
    else { return nil }
    let end = what.firstRange(of: " of ")
    let activity = what[..<(end?.lowerBound ?? what.endIndex)]
    guard !activity.isEmpty, !activity.contains("(") else { return nil }
    self.init(
      String(activity), of: end.map { String(what[$0.upperBound...]) }, process: process,
      host: place.count == 3 ? String(place[2]) : nil, since: since)
  }

  private static func hostName() -> String? {
    var bytes = [CChar](repeating: 0, count: 256)
    guard unsafe gethostname(&bytes, 255) == 0 else { return nil }
    let name = String(
      decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // Nothing that could be taken for the rest of a note.
    let isPlain =
      name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F } && !name.contains { "(),".contains($0) }
    return name.isEmpty || !isPlain ? nil : name
  }
}

extension String {
  fileprivate func lastRange(of text: String) -> Range<Index>? { self[...].lastRange(of: text) }
}

extension Substring {
  fileprivate func lastRange(of text: String) -> Range<Index>? {
    ranges(of: text).last
  }
}
