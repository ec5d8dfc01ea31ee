import Platform
public import SnapshotRepository

/// What a snapshot is to be taken of, and how.
public struct SnapshotOptions: Sendable {
  /// A disk by name, and where it is read: a device, a raw image file, `FORMAT:PATH` of an image in a format, or
  /// the URI of an NBD export.
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
  /// Names of disks that can't be watched (NBD) and that nobody writes to, by the caller's word.
  public var idleDisks: [String] = []
  /// Whether every disk starts a new chain, stored whole: after damage to the old one.
  public var isFull = false
  /// Bytes; a power of two from 4 KiB to 4 MiB. Only for a new collection; nil: the repository's default.
  public var chunkSize: Int?
  /// Threads; nil: one a processor, as far as the memory budget allows.
  public var workerCount: Int?
  /// Which file systems are frozen for the cut.
  public var freezing = Freezing.automatic
  /// Milliseconds after which everything is thawed and the point is given up.
  public var maxFreezeMilliseconds = 10_000
  public var tracking = Tracking.automatic
  public var hooks = Hooks()
  /// The `strobe` program, which guards a freeze; nil: the program that runs, which must be `strobe`.
  public var guardianExecutable: String?
  /// Layers after which a keyframe is written.
  package var keyframeLayerLimit = Keyframe.defaultLayerLimit
  /// Bytes at which a segment is full.
  package var segmentRollover = SegmentWriter.directoryRollover

  public init() {}
}

extension SnapshotOptions {
  public enum Freezing: Sendable, Equatable {
    /// Those that lie on the disks; one that can't be frozen lowers the consistency.
    case automatic
    case none
    /// Those mounted at these places; one that can't be frozen ends the pass.
    case mountPoints([String])
  }

  /// Which change trackers are used for block devices.
  public enum Tracking: String, Sendable, CaseIterable {
    /// One that runs; else, for a disk in use, one for the length of the pass.
    case automatic = "auto"
    /// One that runs; else one is started that stays, so that the next pass reads only what changed.
    case keep
    /// None: disks are read whole.
    case none
  }

  /// Programs that bring applications to rest before the freeze, and let them go on after the thaw.
  public struct Hooks: Sendable, Equatable {
    /// Absolute path; owned by root, not writable by others.
    public var preFreeze: String?
    /// Runs whenever `preFreeze` was started, whatever came of it.
    public var postThaw: String?
    /// For all attempts of a hook together; at most 1,800 seconds.
    public var timeoutSeconds = 30
    /// How often a hook that failed is started again.
    public var retries = 0
    /// Whether a hook that fails ends the pass; otherwise it lowers the consistency.
    public var failureEndsPass = true

    public init() {}

    var areThere: Bool { preFreeze != nil || postThaw != nil }
  }
}

/// What a snapshot did.
public struct SnapshotReport: Sendable {
  public let point: RestorePoint
  /// Whether it is less consistent than what was asked for would have made it.
  public let isWeaker: Bool
  /// Bytes that interrupted snapshots had stored and that were not stored again.
  public let adoptedBytes: Int
  /// What the reader should know although the point was committed.
  public let warnings: [String]
  /// Damaged chunks of older points that can be read again, because a disk still held the same.
  public let healedChunks: Int
  /// Wall-clock seconds of the whole pass.
  public let seconds: Double
}
