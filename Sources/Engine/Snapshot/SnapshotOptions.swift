import Platform
public import SnapshotRepository

/// What a snapshot is to be taken of, and how.
public struct SnapshotOptions: Sendable {
  /// A disk by name, and the device or raw image file that it is read from.
  public struct Disk: Sendable, Equatable {
    public let name: String
    public let path: String

    public init(name: String, path: String) {
      self.name = name
      self.path = path
    }
  }

  /// Disks to add to those that the collection remembers, or to look for elsewhere from now on.
  public var disks: [Disk] = []
  /// Names of remembered disks that the machine no longer has.
  public var forgottenDisks: [String] = []
  /// Names of disks whose chain continues although their identity changed.
  public var sameDisks: [String] = []
  /// Whether every disk starts a new chain, stored whole: after damage to the old one.
  public var isFull = false
  /// Bytes; a power of two from 4 KiB to 4 MiB. Only for a new collection; nil: the repository's default.
  public var chunkSize: Int?
  /// Threads; nil: one a processor, as far as the memory budget allows.
  public var workerCount: Int?
  /// Layers after which a keyframe is written.
  package var keyframeLayerLimit = Keyframe.defaultLayerLimit
  /// Bytes at which a segment is full.
  package var segmentRollover = SegmentWriter.directoryRollover

  public init() {}
}

/// What a snapshot did.
public struct SnapshotReport: Sendable {
  public let point: RestorePoint
  /// What the reader should know although the point was committed.
  public let warnings: [String]
  /// Wall-clock seconds of the whole pass.
  public let seconds: Double
}
