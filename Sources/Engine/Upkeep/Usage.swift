public import Platform
public import SnapshotRepository

/// What a repository takes, and what for.
public struct UsageReport: Sendable {
  /// One restore point.
  public struct Point: Sendable {
    public let id: String
    public let created: Timestamp
    /// Bytes of stored chunks that the point needs.
    public let neededBytes: Int
    /// Bytes that deleting the point alone, and then gc, would free: chunks and layers of its own.
    public let ownBytes: Int
  }

  /// One collection.
  public struct Collection: Sendable {
    public let name: String
    /// Oldest first.
    public let points: [Point]
    /// Bytes on the medium of segments, as far as some point needs them.
    public let liveBytes: Int
    /// Bytes on the medium of the same segments that gc would free.
    public let deadBytes: Int
    /// Bytes of layers.
    public let layerBytes: Int
    /// Bytes of chunks that more than one point needs.
    public let sharedBytes: Int
  }

  public let collections: [Collection]
  /// Bytes of layers and segments that no point names: running and interrupted snapshots, and what gc would
  /// remove.
  public let unnamedBytes: Int
}

extension SnapshotEngine {
  /// Counts what the restore points of one collection, or of all, take.
  ///
  /// - Throws: when a document or layer can't be read.
  public func usage(
    _ collection: String? = nil, stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> UsageReport {
    if let collection { _ = try loadIndex(collection) }
    for _ in 0..<4 {
      do throws(StrobeError) { return try surveyed(collection, stop) } catch {
        // A layer that was merged while the points were read is gone: they name others now.
        guard error.reason == .notFound else { throw error }
      }
    }
    return try surveyed(collection, stop)
  }

  private func surveyed(
    _ collection: String?, _ stop: CancellationFlag
  ) throws(StrobeError) -> UsageReport {
    let survey = try SpaceSurvey(repository, stop)
    var collections: [UsageReport.Collection] = []
    for history in survey.history.collections where collection == nil || history.name == collection
    {
      collections.append(try usage(of: history, survey, stop))
    }
    return UsageReport(collections: collections, unnamedBytes: survey.unnamedBytes)
  }

  private func usage(
    of history: CollectionHistory, _ survey: SpaceSurvey, _ stop: CancellationFlag
  ) throws(StrobeError) -> UsageReport.Collection {
    var needed = [Int](repeating: 0, count: history.points.count)
    var own = needed
    var owners: [ObjectID: Set<Int>] = [:]
    for disk in history.disks {
      var shares = RecordShares(disk, repository.store, stop)
      for (share, link) in zip(try shares.count(), disk.links) {
        needed[link.point] += share.neededBytes
        own[link.point] += share.ownBytes
        for layer in link.chain where (owners[disk.layers[layer]]?.count ?? 0) < 2 {
          owners[disk.layers[layer], default: []].insert(link.point)
        }
      }
    }
    let chunkBytes = own.reduce(0, +)
    for (layer, points) in owners where points.count == 1 {
      own[points.first!] += survey.size(ofLayer: layer)
    }
    let points = history.points.indices.map {
      UsageReport.Point(
        id: history.points[$0].id, created: history.points[$0].created, neededBytes: needed[$0],
        ownBytes: own[$0])
    }
    let (live, dead) = survey.segments(of: history.name)
    return UsageReport.Collection(
      name: history.name, points: points, liveBytes: live, deadBytes: dead,
      layerBytes: owners.keys.reduce(0) { $0 + survey.size(ofLayer: $1) },
      sharedBytes: max(0, live - chunkBytes))
  }
}
