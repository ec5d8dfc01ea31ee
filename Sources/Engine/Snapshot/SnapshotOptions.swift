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
  public var guest = Guest()
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
    /// Those of the guest, through its agent; if they can't be frozen, that ends the pass.
    case guest
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

  /// A guest whose disks are taken, or that is held still while disks of this host are taken. What is said of it is
  /// remembered; `none` as a path, or as the only excluded disk, makes the collection forget it.
  public struct Guest: Sendable, Equatable {
    public enum Hypervisor: Sendable, Equatable {
      /// The UNIX socket of QEMU's monitor (QMP), which takes one client at a time.
      case qemu(monitor: String)
      /// - connection: a libvirt URI, such as `qemu:///system`.
      case libvirt(connection: String, domain: String)
    }

    /// What knows the disks and reads them; nil: they are named as disks of this host, or remembered.
    public var hypervisor: Hypervisor?
    /// The UNIX socket of the guest agent, which freezes the guest's file systems for the cut.
    public var agent: String?
    /// Milliseconds that the agent may take to answer, and to freeze.
    public var agentMilliseconds = 10_000
    /// Whether the agent's own hooks bring the guest's applications to rest.
    public var hooksBringRest = false
    /// The monitor of a guest whose disks are taken on this host, and that is stopped for the cut.
    public var pauseMonitor: String?
    /// Whether a guest's processors may be stopped for the milliseconds of the cut where that is the safer way; nil: as
    /// the collection remembers, or else yes.
    public var mayPause: Bool?
    /// Names of disks that are left out.
    public var excludedDisks: [String] = []
    /// A directory for scratch images, on a file system with room; nil: in the repository.
    public var scratch: String?

    public init() {}
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
    /// Whether they bring the applications' data to rest; otherwise only writers to a halt, as a hook does that pauses
    /// a guest: the point is at best CrashConsistent by them.
    public var bringRest = true

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
