public import Platform
public import SnapshotRepository

/// The restore points of a collection.
public struct CollectionListing: Sendable {
  public let name: String
  /// Oldest first.
  public let points: [PointSummary]
  /// Points that are there but can't be read: why.
  public let unreadable: [StrobeError]
}

/// A restore point with what its chain is made of.
public struct PointDescription: Sendable {
  public struct Disk: Sendable {
    public let disk: DiskRestorePoint
    public let layers: [Layer]
  }

  /// One layer of a chain.
  public struct Layer: Sendable {
    /// 32 hexadecimal digits.
    public let id: String
    public let isKeyframe: Bool
    /// Chunks that the layer says something of.
    public let changedChunks: Int
    /// Chunks of these that hold content.
    public let storedChunks: Int
    /// Bytes of the layer itself.
    public let size: Int
  }

  public let point: RestorePoint
  public let disks: [Disk]
  /// What protects it against deletion, or nil when nothing does.
  public let protection: Protection?
}

extension SnapshotEngine {
  /// The names of all collections, in order.
  public func collections() throws(StrobeError) -> [String] { try repository.collections() }

  /// The restore points of one collection, or of all.
  public func list(_ collection: String? = nil) throws(StrobeError) -> [CollectionListing] {
    var listings: [CollectionListing] = []
    for name in try names(collection) {
      let index = try loadIndex(name)
      listings.append(
        CollectionListing(name: name, points: index.points, unreadable: index.unreadable))
    }
    return listings
  }

  /// One collection, or all.
  func names(_ collection: String?) throws(StrobeError) -> [String] {
    if let collection { return [collection] }
    return try repository.collections()
  }

  /// What a point is and what it is made of.
  public func describe(_ reference: PointReference) throws(StrobeError) -> PointDescription {
    let (point, lock) = try hold(reference)
    defer { lock.release() }
    var disks: [PointDescription.Disk] = []
    for disk in point.disks {
      let layers = try chain(point, disk).layers.map {
        PointDescription.Layer(
          id: $0.header.id.description, isKeyframe: $0.header.isKeyframe,
          changedChunks: $0.footer.changedCount, storedChunks: $0.footer.storedCount, size: $0.size)
      }
      disks.append(PointDescription.Disk(disk: disk, layers: layers))
    }
    return PointDescription(
      point: point, disks: disks, protection: protection(of: point.collection, point.id))
  }

  /// Removes restore points. Others don't change; the space comes back with ``collectGarbage(dryRun:dropsUnfinished:stop:)``.
  ///
  /// - Returns: what was removed, each point once.
  /// - Throws: `refused` when one of them is protected; `busy` when a point is being read or continued; those
  ///   before it are removed.
  @discardableResult
  public func delete(
    _ references: [PointReference]
  ) throws(StrobeError) -> [(collection: String, id: String)] {
    for reference in references {
      if let doubt = try doubt(about: reference) { throw StrobeError(.refused, doubt) }
    }
    let points = try resolveAll(references)
    for point in points { try repository.checkUnprotected(point.collection, point.id) }
    for point in points { try repository.delete(point.collection, point.id) }
    return points.map { ($0.collection, $0.id) }
  }
}
