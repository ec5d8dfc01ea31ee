public import Platform
import SnapshotRepository

/// What a garbage collection freed, or would free.
public struct GarbageReport: Sendable {
  /// Layers and segments removed.
  public let layers: Int
  public let segments: Int
  /// Layers that were merged with their neighbours, because no point separates them any more.
  public let mergedLayers: Int
  /// Segments that were written again without what nobody needs, where their store can't free parts.
  public let rewrittenSegments: Int
  /// Bytes that came free, all in all.
  public let bytes: Int
  /// Bytes of these that were parts of segments that stay.
  public let partBytes: Int
  /// Objects and merges that were left because somebody works with them.
  public let inUse: Int
  /// Bytes that were left because the next snapshot takes them over from one that was interrupted.
  public let unfinishedBytes: Int
  /// What the reader should know.
  public let warnings: [String]
}

extension SnapshotEngine {
  /// Gives back what no restore point needs: whole objects, and parts of segments. Snapshots, restores and
  /// verifications may run meanwhile.
  ///
  /// - Parameters:
  ///   - dryRun: only count.
  ///   - dropsUnfinished: also free what interrupted snapshots stored, which the next would take over.
  ///     Otherwise that goes after a week.
  ///   - maxUnused: the share of a segment, from 0 to 1, that may be dead before it is written again, where
  ///     the store can't free parts.
  /// - Throws: when it can't be known what is still needed; nothing of that is removed then.
  public func collectGarbage(
    dryRun: Bool = false, dropsUnfinished: Bool = false, maxUnused: Double = 0.1,
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> GarbageReport {
    var options = GarbageCollection.Options()
    options.isDryRun = dryRun
    options.maxUnused = maxUnused
    options.dropsUnfinished = dropsUnfinished
    let outcome = try GarbageCollection.run(repository, options, stop: stop)
    return GarbageReport(
      layers: outcome.layers, segments: outcome.segments, mergedLayers: outcome.mergedLayers,
      rewrittenSegments: outcome.rewrittenSegments, bytes: outcome.bytes,
      partBytes: outcome.freedParts, inUse: outcome.inUse,
      unfinishedBytes: outcome.unfinishedBytes, warnings: outcome.warnings)
  }
}
