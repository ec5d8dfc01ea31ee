import Glibc
import Platform
import Synchronization

/// The engine's side of the guardian: a thread that reads what the guardian says, and thaws when it dies.
///
/// Invariants:
/// - L1 The guardian's end of the socket closes only when all its threads are gone (the kernel closes a
///   process's descriptors with its last thread). So after the end of the socket no freeze of the guardian
///   is under way any more, and what it froze without telling is told by the thaw itself (EINVAL means
///   that it was not frozen), or by a guest's monitor. Hence the engine's thaw runs in one place, after the end of the socket.
/// - L2 A file system or guest is thawed by the engine only if the guardian was asked to freeze it, and did not
///   answer that it couldn't: what somebody else froze stays frozen.
/// - L3 A guardian that doesn't keep the deadline, or doesn't begin to thaw when asked, because it was
///   stopped or starved, is killed; then L1 applies.
/// - L4 `isLost` is set before anything is thawed by the engine and before anybody is told, and never cleared.
///   It is set under the state's lock together with the reason: whoever sees it and asks why finds the reason.
final class GuardianLink: Sendable {
  struct State {
    var isRequested: [Bool]
    /// What the freeze returned, how long it took, in nanoseconds, and whether a thaw is owed.
    var answers: [(code: Int32, time: Int64, isOwed: Bool)?]
    /// What the freeze is explained with, as it came.
    var texts: [[UInt8]]
    /// What the thaw returned.
    var thaws: [Int32?]
    var begin: Int64?
    var thawRequest: Int64?
    /// Whether the guardian has taken notice of the request.
    var isThawing = false
    /// Nanoseconds; set when the guardian has answered the thaw.
    var window: Int64?
    var hasDeadlineStruck = false
    var guardianDied = false
    /// The reader is through: the guardian is gone, and what it left frozen was thawed.
    var isEnded = false

    init(count: Int) {
      isRequested = Array(repeating: false, count: count)
      answers = Array(repeating: nil, count: count)
      texts = Array(repeating: [], count: count)
      thaws = Array(repeating: nil, count: count)
    }
  }

  let state: Monitor<State>
  let isLost = Atomic<Bool>(false)
  private let socket: Int32
  private let holds: [any Hold]
  private let maxFreezeMilliseconds: Int
  private let guardian: Mutex<ChildProcess>

  /// What the guardian may be late before it counts as stopped.
  private static let graceMilliseconds = 2_000
  /// How often the reader looks at what is awaited.
  private static let lookMilliseconds: Int32 = 250
  /// How long the guardian may take to answer a thaw: longer than it waits for the kernel itself.
  private static let thawMilliseconds = 25_000

  init(
    _ process: sending ChildProcess, socket: Int32, holds: [any Hold],
    maxFreezeMilliseconds: Int
  ) {
    self.socket = socket
    self.holds = holds
    self.maxFreezeMilliseconds = maxFreezeMilliseconds
    guardian = Mutex(process)
    state = Monitor(State(count: holds.count))
  }

  deinit { close(socket) }

  /// Starts the reader, which lives as long as the guardian.
  func start() throws(StrobeError) {
    guard SmallThread.start({ [self] in read() }) else {
      guardian.withLock { $0.signal(SIGKILL) }
      throw .system(EAGAIN, call: "pthread_create", object: "guardian")
    }
  }

  func send(_ message: GuardianMessage) { message.send(to: socket) }

  /// Tells the guardian that the engine is done: it ends by itself.
  func finish() { shutdown(socket, Int32(SHUT_WR)) }

  var guardianProcess: Int32 { guardian.withLock { $0.id } }

  // MARK: the reader's thread

  private func read() {
    while true {
      var request = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      let limit = patience() ?? .max
      // What is awaited may change while it sleeps.
      _ = unsafe poll(&request, 1, min(Self.lookMilliseconds, Clock.pollTimeout(until: limit)))
      switch GuardianMessage.receive(from: socket) {
      case .message(let message): handle(message)
      case .nothing:
        if Clock.now() >= limit { giveUp() }
      case .end: return end()
      }
    }
  }

  /// Until when the guardian has to have said something; nil: nothing is awaited.
  private func patience() -> Int64? {
    state.update { state in
      if state.window != nil || state.guardianDied { return nil }
      if let request = state.thawRequest {
        let patience = state.isThawing ? Self.thawMilliseconds : Self.graceMilliseconds
        return request + Int64(patience) * 1_000_000
      }
      if state.hasDeadlineStruck { return nil }
      return state.begin.map {
        $0 + Int64(maxFreezeMilliseconds + Self.graceMilliseconds) * 1_000_000
      }
    }
  }

  /// L3. One whose call hangs in the kernel dies when that returns.
  private func giveUp() {
    lose { $0.guardianDied = true }
    guardian.withLock { $0.signal(SIGKILL) }
  }

  /// L4: the loss and its reason, in one step.
  private func lose(_ reason: (inout State) -> Void) {
    state.update { state in
      reason(&state)
      isLost.store(true, ordering: .sequentiallyConsistent)
    }
  }

  private func handle(_ message: GuardianMessage) {
    let index = Int(message.index)
    if message.kind == .deadline { return lose { $0.hasDeadlineStruck = true } }
    state.update { state in
      switch message.kind {
      case .frozen where state.answers.indices.contains(index):
        state.answers[index] = (message.code, message.time, message.detail != 0)
      case .text where state.texts.indices.contains(index): state.texts[index] += message.piece
      case .thawed where state.thaws.indices.contains(index): state.thaws[index] = message.code
      case .thawDone:
        state.window = message.time
        if message.code != 0 { state.hasDeadlineStruck = true }
      case .thawing: state.isThawing = true
      default: break
      }
    }
  }

  /// The guardian is gone (L1).
  private func end() {
    let isPending = state.update { state in
      state.window == nil || state.thaws.contains(GuardianMessage.stillPending)
    }
    if isPending {
      lose { state in if state.window == nil { state.guardianDied = true } }
      thawItself()
    }
    guardian.withLock { process in
      while !process.isOver { usleep(1000) }
      _ = process.collect()
    }
    state.update { $0.isEnded = true }
  }

  /// Last frozen first; a call that hangs doesn't hold up the next for long, as in the guardian.
  private func thawItself() {
    for index in holds.indices.reversed() {
      let (isOurs, isAnswered) = state.update { state in
        let isAnswered = state.answers[index] != nil
        if let thaw = state.thaws[index], thaw != GuardianMessage.stillPending {
          return (false, isAnswered)
        }
        let isOurs = state.isRequested[index] && state.answers[index]?.isOwed ?? true
        state.thaws[index] = isOurs ? GuardianMessage.stillPending : GuardianMessage.neverFrozen
        return (isOurs, isAnswered)
      }
      guard isOurs else { continue }
      let thaw: @Sendable () -> Void = { [self] in
        let isFrozen = isAnswered || holds[index].mayBeFrozen()
        let code = isFrozen ? holds[index].thaw(isEngineAlive: true) : GuardianMessage.neverFrozen
        state.update { $0.thaws[index] = code }
      }
      if !SmallThread.start(isDeep: true, thaw) { thaw() }
      _ = state.wait(until: Clock.after(milliseconds: GuardedState.orderPatience)) {
        $0.thaws[index] == GuardianMessage.stillPending ? nil : true
      }
    }
    _ = state.wait { $0.thaws.contains(GuardianMessage.stillPending) ? nil : true }
  }
}
