public import Platform
public import SnapshotRepository

/// That a restore point is protected, as far as it can be read.
public struct Protection: Sendable, Equatable {
  /// Nil when the protection is there but can't be read: it protects all the same.
  public let since: Timestamp?
  public let note: String?
}

extension SnapshotEngine {
  /// Keeps restore points from being deleted and pruned until ``unprotect(_:)``. A point that is protected
  /// already stays so since then.
  ///
  /// - Parameter note: why, for people; at most 4,096 bytes. Nil leaves a note that is there.
  /// - Returns: the points, each once.
  /// - Throws: `notFound` when there is no such point, `busy` when it is being deleted; those before it are
  ///   protected.
  @discardableResult
  public func protect(
    _ references: [PointReference], note: String? = nil
  ) throws(StrobeError) -> [(collection: String, id: String)] {
    if let note, note.utf8.count > PointProtection.longestNote {
      throw StrobeError(
        .usage, "the note has \(note.utf8.count) bytes, more than \(PointProtection.longestNote)",
        advice: "write less")
    }
    let points = try resolveAll(references)
    for point in points { try repository.protect(point.collection, point.id, note: note) }
    return points
  }

  /// Lets restore points be deleted again.
  ///
  /// - Returns: the points, each once, and whether each was protected.
  @discardableResult
  public func unprotect(
    _ references: [PointReference]
  ) throws(StrobeError) -> [(collection: String, id: String, wasProtected: Bool)] {
    var outcome: [(collection: String, id: String, wasProtected: Bool)] = []
    for point in try resolveAll(references) {
      let wasProtected = try repository.unprotect(point.collection, point.id)
      outcome.append((point.collection, point.id, wasProtected))
    }
    return outcome
  }

  /// What protects a point, or nil when nothing does.
  func protection(of collection: String, _ id: String) -> Protection? {
    do throws(StrobeError) {
      return try PointProtection.read(repository.store, collection, id).map {
        Protection(since: $0.since, note: $0.note)
      }
    } catch {
      return Protection(since: nil, note: nil)
    }
  }

  /// The points that are meant, each once, all looked up before anything is done with the first:
  /// `web@latest web@-1` means two points.
  func resolveAll(
    _ references: [PointReference]
  ) throws(StrobeError) -> [(collection: String, id: String)] {
    var points: [(collection: String, id: String)] = []
    for reference in references {
      let id = try resolve(reference)
      if !points.contains(where: { $0.collection == reference.collection && $0.id == id }) {
        points.append((reference.collection, id))
      }
    }
    return points
  }
}
