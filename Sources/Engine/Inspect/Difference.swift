import ChangeDetection
public import Platform
public import SnapshotRepository

/// A byte range of a disk that differs between two points.
public struct ChangedRange: Sendable, Equatable {
  public enum Kind: String, Sendable {
    /// Holds other content now.
    case changed
    /// Held content, reads as zeros now.
    case cleared
  }

  public let kind: Kind
  /// Bytes from the disk's start.
  public let offset: Int
  /// Bytes.
  public let length: Int

  public init(kind: Kind, offset: Int, length: Int) {
    self.kind = kind
    self.offset = offset
    self.length = length
  }
}

/// What became of one disk between two points.
public struct DiskDifference: Sendable {
  public let name: String
  /// Bytes, or nil when the older point has no such disk.
  public let oldSize: Int?
  /// Bytes, or nil when the newer point has no such disk.
  public let newSize: Int?
  /// Whether another disk took the name.
  public let isReplaced: Bool
  /// Merged, in rising order, in whole chunks; empty when the newer point has no such disk. What lies
  /// beyond the newer end of a disk that shrank is not listed.
  public let ranges: [ChangedRange]

  public var changedBytes: Int { ranges.reduce(0) { $0 + ($1.kind == .changed ? $1.length : 0) } }
  public var clearedBytes: Int { ranges.reduce(0) { $0 + ($1.kind == .cleared ? $1.length : 0) } }
}

/// What became of a machine's disks between two points.
public struct PointDifference: Sendable {
  public let old: RestorePoint
  public let new: RestorePoint
  public let disks: [DiskDifference]
}

extension SnapshotEngine {
  /// Compares two points of one collection by what they restore to.
  ///
  /// - Parameter disks: names to look at; empty: all.
  /// - Complexity: reads the layers that the points don't share; no content.
  /// - Throws: `usage` for points of different collections, `damaged` when a layer can't be read.
  public func difference(
    from old: PointReference, to new: PointReference, disks names: [String] = [],
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> PointDifference {
    guard old.collection == new.collection else {
      throw StrobeError(
        .usage,
        "points of different collections can't be compared: \(old.collection) and \(new.collection)",
        advice: "compare two points of one collection")
    }
    let (oldPoint, oldLock) = try hold(old)
    defer { oldLock.release() }
    let (newPoint, newLock) = try hold(new)
    defer { newLock.release() }
    // The collection's record was lost between them and made anew, with another key.
    guard oldPoint.secret == newPoint.secret else {
      throw StrobeError(
        .refused, "\(old) and \(new) have fingerprints of different keys, which can't be compared",
        advice: "restore both and compare the disks")
    }
    var all = oldPoint.disks.map(\.name)
    all += newPoint.disks.map(\.name).filter { !all.contains($0) }
    for name in names where !all.contains(name) {
      throw StrobeError(
        .notFound, "neither point has a disk \(Names.quoted(name))",
        advice: "the disks are: " + all.joined(separator: ", "))
    }
    var disks: [DiskDifference] = []
    for name in all where names.isEmpty || names.contains(name) {
      disks.append(try difference(name, oldPoint, newPoint, stop))
    }
    return PointDifference(old: oldPoint, new: newPoint, disks: disks)
  }

  private func difference(
    _ name: String, _ oldPoint: RestorePoint, _ newPoint: RestorePoint, _ stop: CancellationFlag
  ) throws(StrobeError) -> DiskDifference {
    let old = oldPoint.disks.first { $0.name == name }
    let new = newPoint.disks.first { $0.name == name }
    var ranges: [ChangedRange] = []
    if let new {
      let delta = MapDelta(
        old: try old.map { disk throws(StrobeError) in try chain(oldPoint, disk) },
        new: try chain(newPoint, new))
      try Self.collect(delta, stop) { kind, offset, length in
        if let last = ranges.last, last.kind == kind, last.offset + last.length == offset {
          ranges[ranges.count - 1] = ChangedRange(
            kind: kind, offset: last.offset, length: last.length + length)
        } else {
          ranges.append(ChangedRange(kind: kind, offset: offset, length: length))
        }
      }
    }
    return DiskDifference(
      name: name, oldSize: old?.size, newSize: new?.size,
      isReplaced: old != nil && new != nil && old?.identity != new?.identity, ranges: ranges)
  }

  private static func collect(
    _ delta: MapDelta, _ stop: CancellationFlag, _ found: (ChangedRange.Kind, Int, Int) -> Void
  ) throws(StrobeError) {
    let geometry = delta.new.geometry
    try delta.forEachGroup(stop: stop) { (group, old, new) throws(StrobeError) in
      let positions = geometry.positions(ofGroup: group)
      for position in positions {
        let index = position - positions.lowerBound
        guard old.isStored(index) || new.isStored(index),
          old.fingerprint(index) != new.fingerprint(index)
        else { continue }
        found(
          new.isStored(index) ? .changed : .cleared, geometry.offset(of: position),
          geometry.length(of: position))
      }
    }
  }

  /// The open chain of a disk of a point.
  func chain(_ point: RestorePoint, _ disk: DiskRestorePoint) throws(StrobeError) -> Chain {
    try Chain(
      repository.store, layers: disk.layerIDs,
      geometry: ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize))
  }
}
