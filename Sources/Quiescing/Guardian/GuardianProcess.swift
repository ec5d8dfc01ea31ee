import CLinux
import Glibc
import Platform

/// The guardian: a process that makes sure that file systems don't stay frozen.
///
/// It freezes them itself, so that it alone knows which freezes are its own, and thaws when told to, when
/// the deadline passes, and when the socket closes because the engine died, however that happened.
///
/// Invariants:
/// - G1 From the first `begin` until everything is thawed, the main thread waits nowhere but in poll(2),
///   with the deadline as its limit. FIFREEZE and FITHAW are called by other threads
///   (``FileSystemKeeper``), and messages are sent without waiting.
/// - G2 The process ends only when nothing is frozen by it: ``finish()`` waits for every call that hangs.
/// - G3 The engine may be unable to die, in a write to a frozen file system; then the socket doesn't
///   close. The deadline needs nobody's death.
/// - G4 Memory is locked before READY, and between the first freeze and the last thaw nothing is allocated, opened,
///   written or logged.
/// - G5 A record is removed only when its file system is thawed, while its lock is held, and only if
///   the path still leads to the very file that is locked.
package enum GuardianProcess {
  /// The first argument with which the program becomes a guardian; in no help text.
  package static let argument = "guardian-process"

  /// Runs the guardian in this process, which was started for that.
  ///
  /// - Returns: the exit status.
  package static func run() -> Int32 {
    clinux_ignore_signals()
    guard let configuration = receiveConfiguration() else {
      let text = "strobe: \(argument) is started by strobe itself, with a socket\n"
      _ = unsafe text.withCString { unsafe write(STDERR_FILENO, $0, strlen($0)) }
      return 2
    }
    closeOnExecution(GuardianConfiguration.descriptorCount(places: configuration.places.count))
    let guardian = Guardian(configuration)
    guard guardian.startKeepers() else { return 1 }
    let oom = protectFromOOMKiller()
    let memory = systemCallCode { clinux_lock_memory() }
    GuardianMessage(.ready, index: Int(oom), code: memory).send(to: GuardianConfiguration.socket)
    guardian.serve()
    return 0
  }

  private static func receiveConfiguration() -> GuardianConfiguration? {
    var bytes = [UInt8](repeating: 0, count: GuardianConfiguration.maximumSize)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe recv(GuardianConfiguration.socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
    }
    guard count > 0 else { return nil }
    return GuardianConfiguration(decoding: Array(bytes.prefix(count)))
  }

  /// A hook that the guardian runs must hold neither the lock nor the mount.
  private static func closeOnExecution(_ count: Int) {
    for descriptor in GuardianConfiguration.socket..<Int32(count) {
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
  }

  /// As far as that is allowed: without CAP_SYS_RESOURCE (a container's root) a score can't be lowered.
  /// See proc(5), oom_score_adj.
  private static func protectFromOOMKiller() -> Int32 {
    let file = unsafe open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
    guard file >= 0 else { return errno }
    defer { close(file) }
    return unsafe write(file, "-1000", 5) == 5 ? 0 : errno
  }
}

/// The guardian's main thread.
private final class Guardian {
  private let configuration: GuardianConfiguration
  private let shared: Monitor<GuardedState>
  private let socket = GuardianConfiguration.socket
  private var began: Int64 = 0
  private var deadline: Int64?
  private var hasDeadlineStruck = false
  private var owesPostThaw = false
  /// The process group of the hook that the engine runs, or 0.
  private var hookGroup: Int32 = 0

  /// How long one FITHAW may hold up the next: long enough to keep the order whenever the kernel
  /// answers, and no reason to leave others frozen when it doesn't.
  private static let orderPatience = 1_000
  /// How long the engine waits for an answer at most.
  private static let answerPatience = 20_000

  init(_ configuration: GuardianConfiguration) {
    self.configuration = configuration
    shared = Monitor(GuardedState(count: configuration.places.count))
  }

  func startKeepers() -> Bool {
    for index in configuration.places.indices {
      let keeper = FileSystemKeeper(index: index, shared: shared)
      // Locked memory includes every thread's whole stack.
      if !SmallThread.start(keeper.run) { return false }
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
    shared.update { $0.isAborted = true }
    for index in configuration.places.indices.reversed() {
      let isRequested = shared.update { state in
        guard state.phases[index] == .frozen else { return false }
        state.phases[index] = .thawRequested
        return true
      }
      guard isRequested else { continue }
      _ = shared.wait(until: Clock.after(milliseconds: Self.orderPatience)) {
        $0.isSettled(index) ? true : nil
      }
    }
  }

  private func thaw() {
    thawAll()
    _ = shared.wait(until: Clock.after(milliseconds: Self.answerPatience)) {
      $0.isSettled ? true : nil
    }
    deadline = nil
    for index in configuration.places.indices {
      let code = shared.update { state in
        switch state.phases[index] {
        case .thawed(let code): code
        case .idle, .notFrozen: GuardianMessage.neverFrozen
        default: GuardianMessage.stillPending
        }
      }
      GuardianMessage(.thawed, index: index, code: code).send(to: socket)
    }
    let window = shared.update { state in
      if state.firstFreeze > 0 { return max(0, state.lastThaw - state.firstFreeze) }
      return began > 0 ? Clock.now() - began : 0
    }
    GuardianMessage(.thawDone, code: hasDeadlineStruck ? 1 : 0, time: window).send(to: socket)
  }

  /// The engine is gone: thaws, clears up what it would have, and waits for every call.
  private func finish() {
    thawAll()
    // What hangs in the kernel must not keep a database suspended that has been thawed.
    _ = shared.wait(until: Clock.after(milliseconds: Self.answerPatience)) {
      $0.isSettled ? true : nil
    }
    removeRecords()
    if owesPostThaw { runPostThaw() }
    _ = shared.wait { $0.isSettled ? true : nil }
    removeRecords()
    shared.update { $0.isEnding = true }
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
