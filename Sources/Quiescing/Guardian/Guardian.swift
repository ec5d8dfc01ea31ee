import Glibc
import Platform

/// The guardian's main thread; ``GuardianProcess`` states what it keeps.
final class Guardian {
  private let configuration: GuardianConfiguration
  private let shared: Monitor<GuardedState>
  private let abort = CancellationFlag()
  private let socket = GuardianConfiguration.socket
  private var began: Int64 = 0
  private var deadline: Int64?
  private var hasDeadlineStruck = false
  private var owesPostThaw = false
  /// The process group of the hook that the engine runs, or 0.
  private var hookGroup: Int32 = 0

  /// Milliseconds after which the engine gets an answer, whatever hangs.
  private static let answerPatience = 20_000

  init(_ configuration: GuardianConfiguration) {
    self.configuration = configuration
    shared = Monitor(GuardedState(count: configuration.places.count))
  }

  func startKeepers() -> Bool {
    for (index, place) in configuration.places.enumerated() {
      let hold = place.kind.hold(inheriting: GuardianConfiguration.place(index))
      let keeper = Keeper(index: index, hold: hold, shared: shared, abort: abort)
      // Locked memory includes every thread's whole stack.
      if !SmallThread.start(isDeep: place.kind != .mount, keeper.run) { return false }
    }
    return true
  }

  func serve() {
    while true {
      var request = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      _ = unsafe poll(&request, 1, Clock.pollTimeout(until: hasDeadlineStruck ? nil : deadline))
      // First, so that a thaw that comes too late is known to be late.
      checkDeadline()
      guard request.revents != 0 else { continue }
      switch GuardianMessage.receive(from: socket) {
      case .message(let message): handle(message)
      case .nothing: continue
      case .end: return finish()
      }
    }
  }

  private func checkDeadline() {
    guard let deadline, !hasDeadlineStruck, Clock.now() >= deadline else { return }
    hasDeadlineStruck = true
    GuardianMessage(.deadline).send(to: socket)
    thawAll()
  }

  private func handle(_ message: GuardianMessage) {
    switch message.kind {
    case .begin:
      if deadline == nil && !shared.update({ $0.isAborted }) {
        began = Clock.now()
        deadline = began + Int64(configuration.maxFreezeMilliseconds) * 1_000_000
      }
    case .freeze: freeze(Int(message.index))
    case .thaw: thaw()
    case .hooksStarted: owesPostThaw = true
    case .hooksFinished: owesPostThaw = false
    case .hookProcess: hookGroup = message.code
    default: break
    }
  }

  private func freeze(_ index: Int) {
    let isAccepted = shared.update { state in
      // Without a deadline nothing is frozen.
      guard deadline != nil, state.phases.indices.contains(index), !state.isAborted,
        state.phases[index] == .idle
      else { return false }
      state.phases[index] = .freezeRequested
      return true
    }
    if !isAccepted {
      GuardianMessage(.frozen, index: index, code: ECANCELED).send(to: socket)
    }
  }

  /// Thaws what is frozen, last frozen first; what is being frozen thaws when its call returns.
  private func thawAll() {
    let limit = Clock.after(milliseconds: Self.answerPatience)
    shared.update { $0.isAborted = true }
    abort.cancel()
    for index in configuration.places.indices.reversed() {
      let isRequested = shared.update { state in
        guard state.phases[index] == .frozen else { return false }
        state.phases[index] = .thawRequested
        return true
      }
      guard isRequested else { continue }
      let patience = Clock.after(milliseconds: GuardedState.orderPatience)
      _ = shared.wait(until: min(patience, limit)) { $0.isSettled(index) ? true : nil }
    }
  }

  private func thaw() {
    let limit = Clock.after(milliseconds: Self.answerPatience)
    GuardianMessage(.thawing).send(to: socket)
    thawAll()
    _ = shared.wait(until: limit) { $0.isSettled ? true : nil }
    deadline = nil
    for index in configuration.places.indices {
      let code = shared.update { state in
        switch state.phases[index] {
        case .thawed(let code): code
        case .idle, .notFrozen: GuardianMessage.neverFrozen
        default: GuardianMessage.stillPending
        }
      }
      GuardianMessage(.thawed, index: index, code: code).sendPatiently(to: socket)
    }
    let window = shared.update { state in
      if state.firstFreeze > 0 { return max(0, state.lastThaw - state.firstFreeze) }
      return began > 0 ? Clock.now() - began : 0
    }
    GuardianMessage(.thawDone, code: hasDeadlineStruck ? 1 : 0, time: window).sendPatiently(
      to: socket)
  }

  /// The engine is gone: thaws, clears up what it would have, and waits for every call.
  private func finish() {
    shared.update { $0.isOrphaned = true }
    thawAll()
    var retried = retry([])
    // What hangs in the kernel must not keep a database suspended that has been thawed.
    _ = shared.wait(until: Clock.after(milliseconds: Self.answerPatience)) {
      $0.isSettled ? true : nil
    }
    retried = retry(retried)
    removeRecords()
    if owesPostThaw { runPostThaw() }
    _ = shared.wait { $0.isSettled ? true : nil }
    removeRecords()
    shared.update { $0.isEnding = true }
  }

  /// Guests whose thaw failed while somebody waited for it get another, longer one.
  ///
  /// - Parameter retried: those that had it.
  /// - Returns: all that have had it now.
  private func retry(_ retried: Set<Int>) -> Set<Int> {
    shared.update { state in
      var retried = retried
      for (index, place) in configuration.places.enumerated() where place.kind != .mount {
        guard case .thawed(let code) = state.phases[index], code != 0, code != EINVAL,
          retried.insert(index).inserted
        else { continue }
        state.phases[index] = .thawRequested
      }
      return retried
    }
  }

  /// In the engine's place: what a pre-freeze hook suspended must not stay so.
  private func runPostThaw() {
    guard let hook = configuration.postThaw else { return }
    if hookGroup > 1 {
      // A pre-freeze hook that goes on would suspend the application again.
      kill(-hookGroup, SIGTERM)
      for _ in 0..<200 where kill(-hookGroup, 0) == 0 { usleep(10_000) }
      kill(-hookGroup, SIGKILL)
    }
    // The application that it wakes up must not inherit the protection.
    GuardianProcess.setOOMScore("0")
    _ = try? HookRunner(hook).run(stop: CancellationFlag())
  }

  private func removeRecords() {
    for (index, place) in configuration.places.enumerated() where !place.recordPath.isEmpty {
      let isOver = shared.update { state in
        switch state.phases[index] {
        case .thawed(let code): code == 0 || code == EINVAL
        case .idle, .notFrozen: !place.isStale
        default: false
        }
      }
      if isOver {
        FreezeRecord.remove(place.recordPath, lockedBy: configuration.record(index))
      }
    }
  }
}
