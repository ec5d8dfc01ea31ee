import CLinux
import Glibc
import Platform

/// A file system or guest that could be opened: it has an index at the guardian.
struct FreezePlace: Sendable {
  let target: FreezeTarget
  let kind: HoldKind
  /// For when the guardian is gone; until then the guardian's is used.
  let hold: any Hold
  /// What the guardian inherits.
  let descriptor: Int32
  let record: FreezeRecord

  /// What a target that can't be held comes to.
  struct Absence {
    let outcome: FreezeOutcome
    let explanation: String?
    let isLeftBehind: Bool
  }

  /// Opens a target.
  ///
  /// - Throws: `system` when this host doesn't say what it should; `cancelled`.
  static func open(
    _ target: FreezeTarget, _ record: FreezeRecord, stop: CancellationFlag
  ) throws(StrobeError) -> Result<FreezePlace, Absence> {
    switch target {
    case .fileSystem(let system):
      let mount = try MountedSystems.handle(of: system.device, preferring: system.mountPoint)
      guard let mount else {
        return .failure(
          Absence(outcome: .vanished, explanation: nil, isLeftBehind: record.isStale))
      }
      return .success(
        FreezePlace(
          target: target, kind: .mount, hold: MountHold(mount),
          descriptor: mount.descriptor.number, record: record))
    case .guest(let guest):
      do throws(StrobeError) {
        let (hold, descriptor) = try guest.connect(stop: stop)
        return .success(
          FreezePlace(
            target: target, kind: guest.kind, hold: hold, descriptor: descriptor, record: record))
      } catch {
        if error.reason == .cancelled { throw error }
        return .failure(
          Absence(
            outcome: outcome(of: error), explanation: error.message, isLeftBehind: record.isStale))
      }
    }
  }

  private static func outcome(of error: StrobeError) -> FreezeOutcome {
    switch error.reason {
    case .notFound: .vanished
    case .system(EBUSY, _, _): .alreadyFrozen
    case .system(ENOTSUP, _, _): .unsupported
    case .system(let code, _, _): .failed(errno: code)
    case .busy: .failed(errno: EAGAIN)
    default: .failed(errno: EIO)
    }
  }

  /// Writes out what waits in memory, again until that is quick, so that the freeze itself is short.
  func synchronize() throws(StrobeError) {
    // What a guest has to write out, its agent freezes only after that.
    guard case .fileSystem(let system) = target else { return }
    var last = Int64.max
    for _ in 0..<5 {
      let start = Clock.now()
      try systemCall("syncfs", system.mountPoint) { clinux_syncfs(descriptor) }
      let time = Clock.now() - start
      if time < 20_000_000 || time >= last { break }
      last = time
    }
  }
}

extension FreezePlace.Absence: Error {}

extension FreezeTarget {
  /// In which order targets are frozen: those of one step at once.
  var step: Int {
    switch self {
    // Innermost first.
    case .fileSystem(let system): -system.depth
    case .guest(let guest): guest.kind.step
    }
  }

  var recordKind: HoldKind {
    switch self {
    case .fileSystem: .mount
    case .guest(let guest): guest.kind
    }
  }

  func recordPath(in folder: String) -> String {
    switch self {
    case .fileSystem(let system): FreezeRecord.path(of: system.device, in: folder)
    case .guest(let guest): FreezeRecord.path(ofGuest: guest.socketPath, in: folder)
    }
  }
}
