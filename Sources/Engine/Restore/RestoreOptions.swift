import Platform
public import SnapshotRepository

/// Where a disk of a restore point goes.
public struct RestoreTarget: Sendable, Equatable {
  public let disk: String
  /// A block device, or the name of a file to be made.
  public let path: String

  public init(disk: String, path: String) {
    self.disk = disk
    self.path = path
  }
}

/// What a restore may destroy, and how it works.
public struct RestoreOptions: Sendable {
  /// Replace a file that is there already.
  public var overwritesFiles = false
  /// Write to a device that the collection takes its points of.
  public var overwritesSources = false
  /// Go on with an interrupted restore: what the targets hold is read, and only what differs is written.
  public var resumes = false
  /// Go on where stored chunks are damaged: zeros are written in their place.
  public var allowsDamage = false
  /// Threads; nil: one a processor.
  public var workerCount: Int?

  public init() {}
}

/// What a restore did.
public struct RestoreReport: Sendable {
  public struct Disk: Sendable {
    public let name: String
    public let target: String
    /// Bytes of the disk.
    public let size: Int
    /// Bytes of content written.
    public let writtenBytes: Int
    /// Bytes that the target held already, zeros included; 0 unless a restore was gone on with.
    public let keptBytes: Int
    /// Bytes of the disk that are zeros because what was stored there is damaged; in order.
    public let damagedRanges: [Range<Int>]
    /// Bytes of the target beyond the disk's end, which were left as they are.
    public let untouchedBytes: Int
  }

  public let point: RestorePoint
  public let disks: [Disk]
  /// Wall-clock seconds.
  public let seconds: Double
}
