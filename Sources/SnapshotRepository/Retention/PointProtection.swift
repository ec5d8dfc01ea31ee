package import Platform

/// That a restore point must not be deleted: `collections/<collection>/<point id>.protected`.
///
/// Who writes one holds the point, and who deletes the point looks for one while nobody can hold it: so
/// either the protection is seen or the point is gone before it could be protected. When in doubt a point is
/// protected: a document that can't be read protects.
package struct PointProtection: Codable, Sendable, Equatable {
  let format: Int
  /// The point's id.
  let point: String
  package let since: Timestamp
  package let note: String?

  /// Bytes.
  package static let longestNote = 4096
  private static let suffix = ".protected"

  package init(point: String, since: Timestamp, note: String?) {
    format = Document.format
    self.point = point
    self.since = since
    self.note = note
  }

  package static func objectName(_ collection: String, _ id: String) -> String {
    "collections/\(collection)/\(id)\(suffix)"
  }

  /// The point that a name in a collection's folder protects.
  package static func point(_ name: String) -> String? {
    guard name.hasSuffix(suffix), PassID(name.dropLast(suffix.count)) != nil else { return nil }
    return String(name.dropLast(suffix.count))
  }

  /// What protects a point, or nil when nothing does.
  ///
  /// - Throws: `damaged` and others when something does, but it can't be read.
  package static func read(
    _ store: any ObjectStore, _ collection: String, _ id: String
  ) throws(StrobeError) -> PointProtection? {
    let name = objectName(collection, id)
    do throws(StrobeError) {
      let bytes = try store.get(name, limit: Document.sizeLimit)
      let protection = try Document.decode(PointProtection.self, bytes, name: name)
      guard protection.point == id else {
        throw .damaged(name, expected: "the protection of \(id)", found: "other fields")
      }
      return protection
    } catch {
      if error.reason == .notFound { return nil }
      throw error
    }
  }
}

extension Repository {
  /// Keeps a point from being deleted. A point that is protected already stays so since then; a note
  /// replaces the old one.
  ///
  /// - Throws: `notFound` when there is no such point.
  package func protect(
    _ collection: String, _ id: String, note: String?
  ) throws(StrobeError) {
    let lock = try store.hold(RestorePoint.objectName(collection, id))
    defer { lock.release() }
    // One that can't be read is written anew.
    let old = (try? PointProtection.read(store, collection, id)) ?? nil
    if let old, note == nil || note == old.note { return }
    let protection = PointProtection(point: id, since: old?.since ?? .now, note: note ?? old?.note)
    try store.put(
      PointProtection.objectName(collection, id), Document.encode(protection), replacing: true)
  }

  /// Lets a point be deleted again.
  ///
  /// - Returns: false when it wasn't protected.
  package func unprotect(_ collection: String, _ id: String) throws(StrobeError) -> Bool {
    let name = PointProtection.objectName(collection, id)
    guard try store.exists(name) else { return false }
    try store.remove(name)
    return true
  }

  /// - Throws: `refused` when the point is protected, or may be.
  package func checkUnprotected(_ collection: String, _ id: String) throws(StrobeError) {
    let point = "\(collection)@\(id.prefix(12))"
    let advice = "to delete it all the same: strobe unprotect \(point)"
    do throws(StrobeError) {
      guard let protection = try PointProtection.read(store, collection, id) else { return }
      throw StrobeError(
        .refused,
        "\(point) is protected since \(protection.since)"
          + (protection.note.map { " (\($0))" } ?? ""), advice: advice)
    } catch {
      if error.reason == .refused { throw error }
      throw StrobeError(.refused, "\(point) is protected: \(error.message)", advice: advice)
    }
  }
}
