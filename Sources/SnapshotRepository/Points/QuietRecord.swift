/// A file system that was frozen for a restore point.
public struct FrozenFileSystem: Codable, Sendable, Equatable {
  public let mountPoint: String
  /// `ext4`, `xfs`, `btrfs`, …
  public let fileSystem: String
  /// How long the freeze took, most of it the kernel's own flush.
  public let freezeMilliseconds: Double

  package init(mountPoint: String, fileSystem: String, freezeMilliseconds: Double) {
    self.mountPoint = mountPoint
    self.fileSystem = fileSystem
    self.freezeMilliseconds = freezeMilliseconds
  }
}

/// A hook that ran for a restore point.
public struct HookRecord: Codable, Sendable, Equatable {
  /// `pre-freeze` or `post-thaw`.
  public let phase: String
  public let program: String
  /// Nil when it succeeded; else how it ended.
  public let failure: String?
  public let attempts: Int
  public let milliseconds: Double
  /// What it wrote, standard output and standard error together, cut off at 64 KiB.
  public let output: String

  package init(
    phase: String, program: String, failure: String?, attempts: Int, milliseconds: Double,
    output: String
  ) {
    self.phase = phase
    self.program = program
    self.failure = failure
    self.attempts = attempts
    self.milliseconds = milliseconds
    self.output = output
  }
}
