package import Platform

package struct FreezeOptions: Sendable {
  /// How long anything may stay frozen, from the first freeze on; also how long another pass that holds
  /// one of the file systems is waited for.
  package var maxFreezeMilliseconds = 10_000
  /// The program that becomes the guardian: `strobe`; nil: this process's own.
  package var guardianExecutable: String?
  /// Where the records are; made when missing. On no file system that is to be frozen.
  package var recordFolder = FreezeRecord.defaultFolder
  /// Looked at while another pass is waited for.
  package var stop = CancellationFlag()

  package init() {}
}

/// What came of the freeze of one file system.
package enum FreezeOutcome: Sendable, Equatable {
  /// Frozen; how long the kernel took for it.
  case frozen(milliseconds: Double)
  /// The file system knows no freeze.
  case unsupported
  /// Frozen before, by somebody else: it is left alone, and nothing says how long it stays so.
  case alreadyFrozen
  /// Its mount point is gone, mounted over, or leads to another file system.
  case vanished
  case failed(errno: Int32)
}

package struct FreezeResult: Sendable {
  package let fileSystem: FileSystemOnDisk
  package let outcome: FreezeOutcome
  /// Whether there was a record of it that an outage left: when it is `alreadyFrozen`, then most likely by
  /// an earlier pass, and `strobe thaw` ends that.
  package let isLeftBehind: Bool
}

/// How the freeze went, known after the thaw.
package struct FreezeWindow: Sendable {
  /// From before the first freeze to after the last thaw.
  package let milliseconds: Double
  /// Whether everything that was frozen stayed so until the thaw was asked for.
  package let isHeld: Bool
  /// Why it didn't hold.
  package let brokenBy: String?
}
