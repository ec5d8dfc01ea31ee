public import Platform
public import SnapshotRepository

/// A restore point as a person writes it: `COLLECTION@latest`, `COLLECTION@-N` (N before the latest),
/// `COLLECTION@ID` (a unique prefix of it) or `COLLECTION@TIME` (the newest at or before that time).
public struct PointReference: Sendable, Equatable {
  public enum Selector: Sendable, Equatable {
    case latest
    case before(Int)
    case time(Timestamp)
    case prefix(String)
  }

  public let collection: String
  public let selector: Selector

  /// - Throws: `usage` when the text is no reference.
  public init(_ text: String) throws(StrobeError) {
    let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2 else {
      throw StrobeError(
        .usage, "\(Names.quoted(text)) names no restore point",
        advice: "write COLLECTION@latest, COLLECTION@-N, COLLECTION@ID or COLLECTION@TIME")
    }
    collection = String(parts[0])
    try Names.check(collection, "collection")
    guard let selector = Self.selector(String(parts[1])) else {
      throw StrobeError(
        .usage, "\(Names.quoted(String(parts[1]))) is no restore point of a collection",
        advice: "write latest, -N, the beginning of an ID, or a time such as 2026-11-21T08:00Z")
    }
    self.selector = selector
  }

  private static func selector(_ text: String) -> Selector? {
    if text == "latest" { return .latest }
    if text.hasPrefix("-"), text.dropFirst().utf8.allSatisfy({ 48...57 ~= $0 }) {
      return Int(text.dropFirst()).map { .before($0) }
    }
    if let time = Timestamp(text) { return .time(time) }
    let lower = text.lowercased()
    let isHexadecimal = lower.utf8.allSatisfy { 48...57 ~= $0 || 97...102 ~= $0 }
    return !lower.isEmpty && lower.utf8.count <= 24 && isHexadecimal ? .prefix(lower) : nil
  }
}

extension SnapshotEngine {
  /// The id of the point that a reference means.
  ///
  /// - Throws: `notFound` with the nearest points, `usage` when several points are meant.
  public func resolve(_ reference: PointReference) throws(StrobeError) -> String {
    let index = try loadIndex(reference.collection)
    let points = index.points
    let name = reference.collection
    switch reference.selector {
    case .latest:
      guard let last = points.last else { throw try noPoints(index, name) }
      return last.id
    case .before(let count):
      guard count < points.count else {
        throw StrobeError(
          .notFound, "\(name) has \(points.count) restore points, so there is no \(name)@-\(count)",
          advice: points.isEmpty ? nil : "the oldest is \(name)@-\(points.count - 1)")
      }
      return points[points.count - 1 - count].id
    case .time(let time):
      guard let found = points.last(where: { $0.created <= time }) else {
        throw StrobeError(
          .notFound, "\(name) has no restore point at or before \(time)",
          advice: points.first.map { "the oldest is of \($0.created)" })
      }
      return found.id
    case .prefix(let prefix): return try point(prefix, index, name)
    }
  }

  /// What is uncertain about which point is meant, or nil: beside points that can't be read it isn't known which is
  /// the newest.
  public func doubt(about reference: PointReference) throws(StrobeError) -> String? {
    if case .prefix = reference.selector { return nil }
    guard let error = try loadIndex(reference.collection).unreadable.first else { return nil }
    return
      "\(reference) may mean another point: \(error.message); name the point by its id, or delete the "
      + "damaged one"
  }

  private func point(_ prefix: String, _ index: PointIndex, _ name: String) throws(StrobeError)
    -> String
  {
    let found = index.points.filter { $0.id.hasPrefix(prefix) }
    if found.count == 1 { return found[0].id }
    guard found.isEmpty else {
      let some = found.prefix(4).map { "\(name)@\($0.id.prefix(prefix.count + 4))" }.joined(
        separator: ", ")
      throw StrobeError(
        .usage, "\(name)@\(prefix) means \(found.count) restore points: \(some)",
        advice: "write more of the id")
    }
    // A point whose document can't be read may still be named, to delete it.
    let names = try repository.store.names(in: "collections/\(name)")
    let damaged = names.filter {
      $0.hasSuffix(".json") && $0.hasPrefix(prefix) && PassID($0.dropLast(5)) != nil
    }
    if damaged.count == 1 { return String(damaged[0].dropLast(5)) }
    let nearest = index.points.sorted {
      Self.distance($0.id, prefix) < Self.distance($1.id, prefix)
    }.prefix(3)
    throw StrobeError(
      .notFound, "\(name) has no restore point \(prefix)",
      advice: nearest.isEmpty
        ? "it has no restore points"
        : "the nearest are " + nearest.map { "\(name)@\($0.id.prefix(12))" }.joined(separator: ", ")
    )
  }

  /// How far an id's beginning is from what was typed, in wrong, missing and surplus characters.
  private static func distance(_ id: String, _ typed: String) -> Int {
    editDistance(Array(id.utf8.prefix(typed.utf8.count)), Array(typed.utf8))
  }

  private func noPoints(_ index: PointIndex, _ name: String) throws(StrobeError) -> StrobeError {
    if let error = index.unreadable.first { return error }
    return StrobeError(
      .notFound, "collection \(name) has no restore points",
      advice: "take one with: strobe snapshot \(name)")
  }

  /// The points of a collection that exists.
  func loadIndex(_ collection: String) throws(StrobeError) -> PointIndex {
    try Names.check(collection, "collection")
    let all = try repository.collections()
    // One that is there but can't be looked into isn't empty.
    if all.contains(collection) {
      _ = try repository.store.namesIfFolder("collections/\(collection)")
    }
    guard all.contains(collection) else {
      let nearest = all.sorted {
        editDistance(Array($0.utf8), Array(collection.utf8))
          < editDistance(Array($1.utf8), Array(collection.utf8))
      }.prefix(3)
      throw StrobeError(
        .notFound, "there is no collection \(Names.quoted(collection)) in \(location)",
        advice: nearest.isEmpty
          ? "it has none yet"
          : (nearest.count == 1 ? "there is " : "the nearest are ")
            + nearest.joined(separator: ", "))
    }
    return try PointIndex.load(repository, collection)
  }
}

/// The least number of insertions, deletions and replacements that turn one text into another.
func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
  var row = Array(0...right.count)
  for (i, a) in left.enumerated() {
    var diagonal = row[0]
    row[0] = i + 1
    for (j, b) in right.enumerated() {
      let next = min(row[j] + 1, row[j + 1] + 1, diagonal + (a == b ? 0 : 1))
      diagonal = row[j + 1]
      row[j + 1] = next
    }
  }
  return row[right.count]
}
