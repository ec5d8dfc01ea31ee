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

/// What is to be frozen.
package enum FreezeTarget: Sendable, Equatable {
  case fileSystem(FileSystemOnDisk)
  case guest(GuestHold)

  /// The mount point, or the path of the guest's socket.
  package var name: String {
    switch self {
    case .fileSystem(let system): system.mountPoint
    case .guest(let guest): guest.socketPath
    }
  }

  /// For messages.
  package var title: String {
    switch self {
    case .fileSystem(let system): system.mountPoint
    case .guest(let guest): "the guest of \(guest.socketPath)"
    }
  }
}

/// What came of the freeze of one file system or guest.
package enum FreezeOutcome: Sendable, Equatable {
  /// Frozen; how long the kernel, or the guest, took for it.
  case frozen(milliseconds: Double)
  /// The file system, or the guest's agent, knows no freeze.
  case unsupported
  /// Frozen before, by somebody else: it is left alone, and nothing says how long it stays so.
  case alreadyFrozen
  /// Its mount point is gone, mounted over, or leads to another file system; nobody listens at the guest's socket.
  case vanished
  /// Of a guest: ETIMEDOUT: it doesn't answer; ENODATA: its agent found nothing to freeze; ECONNRESET: it is gone.
  case failed(errno: Int32)
}

package struct FreezeResult: Sendable {
  package let target: FreezeTarget
  package let outcome: FreezeOutcome
  /// What the guest, or whoever failed, said about it.
  package let explanation: String?
  /// Whether there was a record of it that an outage left: when it is `alreadyFrozen`, then most likely by
  /// an earlier pass, and `strobe thaw` ends that.
  package let isLeftBehind: Bool

  /// nil: it is a guest.
  package var fileSystem: FileSystemOnDisk? {
    if case .fileSystem(let system) = target { system } else { nil }
  }

  /// nil: it is a file system.
  package var guest: GuestHold? {
    if case .guest(let guest) = target { guest } else { nil }
  }
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
