import CLinux
import Glibc

/// What the guardian's threads share: the state of each file system.
///
/// Invariants:
/// - I1 A file system is `frozen` only after *our* FIFREEZE returned 0, and leaves that state only through
///   our own FITHAW. What somebody else froze (EBUSY) never gets there, so it is never thawed.
/// - I2 Once `isAborted` is set it stays. A FIFREEZE that returns 0 after that goes to `thawing` in the
///   same step that would have made it `frozen`: there is no moment in which nobody is to thaw it.
/// - I3 Only the keeper's own thread calls FIFREEZE and FITHAW for its file system, one after the other. A
///   call that hangs in the kernel holds up neither the deadline nor the other file systems.
struct GuardedState {
  enum Phase: Equatable {
    case idle
    case freezeRequested, freezing
    case frozen
    case thawRequested, thawing
    /// FITHAW returned this: 0 or errno.
    case thawed(Int32)
    /// FIFREEZE returned this errno: not ours.
    case notFrozen(Int32)
  }

  var phases: [Phase]
  var isAborted = false
  var isEnding = false
  /// CLOCK_MONOTONIC, nanoseconds: before the first FIFREEZE, after the last FITHAW; 0 when there was none.
  var firstFreeze: Int64 = 0
  var lastThaw: Int64 = 0

  /// Milliseconds that one FITHAW may hold up the next: long enough to keep the order whenever the
  /// kernel answers, and no reason to leave others frozen when it doesn't.
  static let orderPatience = 1_000

  init(count: Int) { phases = Array(repeating: .idle, count: count) }

  /// Whether nothing is, or may still become, frozen by us.
  func isSettled(_ index: Int) -> Bool {
    switch phases[index] {
    case .idle, .thawed, .notFrozen: true
    case .freezeRequested, .freezing, .frozen, .thawRequested, .thawing: false
    }
  }

  var isSettled: Bool { phases.indices.allSatisfy(isSettled) }
}

/// Freezes and thaws one file system, on a thread of its own.
struct FileSystemKeeper {
  private enum Work {
    case freeze, thaw, end
  }

  let index: Int
  let shared: Monitor<GuardedState>

  private var descriptor: Int32 { GuardianConfiguration.mount(index) }

  /// The thread's body: returns when the guardian ends.
  func run() {
    while true {
      switch shared.wait(nextWork) ?? .end {
      case .freeze: freeze()
      case .thaw: thaw()
      case .end: return
      }
    }
  }

  private func nextWork(_ state: inout GuardedState) -> Work? {
    switch state.phases[index] {
    case .freezeRequested:
      if state.isAborted {
        state.phases[index] = .notFrozen(ECANCELED)
        return nil
      }
      state.phases[index] = .freezing
      if state.firstFreeze == 0 { state.firstFreeze = Clock.now() }
      return .freeze
    case .thawRequested:
      state.phases[index] = .thawing
      return .thaw
    default: return state.isEnding ? .end : nil
    }
  }

  private func freeze() {
    let start = Clock.now()
    let code = systemCallCode { clinux_freeze(descriptor) }
    let duration = Clock.now() - start
    let isLate = shared.update { state in
      if code != 0 {
        state.phases[index] = .notFrozen(code)
      } else {
        state.phases[index] = state.isAborted ? .thawing : .frozen
      }
      return code == 0 && state.isAborted
    }
    if isLate { thaw() }
    GuardianMessage(.frozen, index: index, code: isLate ? ECANCELED : code, time: duration)
      .send(to: GuardianConfiguration.socket)
  }

  private func thaw() {
    let code = systemCallCode { clinux_thaw(descriptor) }
    let end = Clock.now()
    shared.update { state in
      state.phases[index] = .thawed(code)
      state.lastThaw = max(state.lastThaw, end)
    }
  }
}

/// 0, or the errno of a system call that is run again while it is interrupted.
func systemCallCode(_ body: () -> Int32) -> Int32 {
  while true {
    if body() != -1 { return 0 }
    if errno != EINTR { return errno }
  }
}
