public import Platform
public import SnapshotRepository

/// What a prune did, or would do.
public struct PruneReport: Sendable {
  public struct Point: Sendable {
    public let decision: RetentionDecision
    public let outcome: PruneOutcome
  }

  public let collection: String
  public let dryRun: Bool
  /// Every point that can be read, oldest first.
  public let points: [Point]
  /// The ids of points that can't be read, which are never pruned.
  public let unreadableIDs: [String]
  /// Why they can't.
  public let unreadable: [StrobeError]
}

/// What became of a point in a prune.
public enum PruneOutcome: String, Codable, Sendable {
  /// A rule keeps it.
  case kept
  /// It was removed; in a dry run: it would be.
  case removed
  /// No rule keeps it, but another command reads or continues it.
  case held
  /// No rule keeps it, but somebody protected it meanwhile.
  case protected
}

extension SnapshotEngine {
  /// Removes the points of a collection that no rule of `policy` keeps, the oldest first; the space comes
  /// back with ``collectGarbage(dryRun:stop:)``.
  ///
  /// The newest point and protected ones always stay. Each removal is complete in itself: one that is
  /// stopped in the middle has removed fewer points, nothing else. What another command holds is left.
  ///
  /// - Parameters:
  ///   - dryRun: only decide.
  ///   - stop: looked at between removals.
  /// - Throws: `usage` for a policy without rules, `notFound` when there is no such collection,
  ///   `cancelled`, `system`; what was removed before stays removed.
  public func prune(
    _ collection: String, _ policy: RetentionPolicy, dryRun: Bool = false,
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> PruneReport {
    let index = try loadIndex(collection)
    let facts = RetentionFacts(
      protected: Set(index.points.filter(\.isProtected).map(\.id)),
      newestVerified: try newestVerifiedPoint(collection), now: .now)
    var points: [PruneReport.Point] = []
    for decision in try policy.decisions(index.points, facts) {
      var outcome = decision.keptBy.isEmpty ? PruneOutcome.removed : .kept
      if outcome == .removed, !dryRun {
        try stop.check()
        outcome = try remove(collection, decision.point.id)
      }
      points.append(PruneReport.Point(decision: decision, outcome: outcome))
    }
    return PruneReport(
      collection: collection, dryRun: dryRun, points: points, unreadableIDs: index.unreadableIDs,
      unreadable: index.unreadable)
  }

  private func remove(_ collection: String, _ id: String) throws(StrobeError) -> PruneOutcome {
    do throws(StrobeError) {
      try repository.delete(collection, id)
      return .removed
    } catch {
      switch error.reason {
      // Somebody else was quicker.
      case .notFound: return .removed
      case .busy: return .held
      case .refused: return .protected
      default: throw error
      }
    }
  }
}
