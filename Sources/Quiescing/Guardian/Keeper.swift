import Glibc
import Platform

/// What the guardian's threads share: the state of each place, a file system or a guest.
///
/// Invariants:
/// - I1 A place is `frozen` only after *our* freeze succeeded (or, of a guest, may still do so), and leaves that
///   state only through our own thaw. What somebody else froze (EBUSY) never gets there, so it is never thawed.
/// - I2 Once `isAborted` is set it stays. A freeze that succeeds after that goes to `thawing` in the
///   same step that would have made it `frozen`: there is no moment in which nobody is to thaw it.
/// - I3 Only the keeper's own thread freezes and thaws its place, one after the other. A call that hangs in
///   the kernel, or a guest that doesn't answer, holds up neither the deadline nor the other places.
struct GuardedState {
  enum Phase: Equatable {
    case idle
    case freezeRequested, freezing
    case frozen
    case thawRequested, thawing
    /// The thaw returned this: 0 or errno.
    case thawed(Int32)
    /// The freeze returned this errno: not ours.
    case notFrozen(Int32)
  }

  var phases: [Phase]
  var isAborted = false
  var isEnding = false
  /// Whether the engine is gone.
  var isOrphaned = false
  /// CLOCK_MONOTONIC, nanoseconds: before the first freeze, after the last thaw; 0 when there was none.
  var firstFreeze: Int64 = 0
  var lastThaw: Int64 = 0

  /// Milliseconds that one thaw may hold up the next: long enough to keep the order whenever there
  /// is an answer, and no reason to leave others frozen when there is none.
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

/// Freezes and thaws one place, on a thread of its own.
struct Keeper {
  private enum Work {
    case freeze, thaw, end
  }

  let index: Int
  let hold: any Hold
  let shared: Monitor<GuardedState>
  /// Set with `isAborted`.
  let abort: CancellationFlag

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
    let answer = hold.freeze(stop: abort)
    let duration = Clock.now() - start
    let isLate = shared.update { state in
      if answer.isOwed {
        state.phases[index] = state.isAborted ? .thawing : .frozen
      } else {
        state.phases[index] = .notFrozen(answer.code)
      }
      return answer.isOwed && state.isAborted
    }
    if isLate { thaw() }
    let socket = GuardianConfiguration.socket
    if !answer.text.isEmpty { GuardianMessage.sendText(answer.text, of: index, to: socket) }
    GuardianMessage(
      .frozen, index: index, code: isLate ? ECANCELED : answer.code,
      detail: answer.isOwed && !isLate ? 1 : 0, time: duration
    ).send(to: socket)
  }

  private func thaw() {
    let isEngineAlive = shared.update { !$0.isOrphaned }
    let code = hold.thaw(isEngineAlive: isEngineAlive)
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
