import Glibc
import Platform
import VirtualMachines

/// A guest whose processors are stopped through its QMP monitor.
///
/// The connection is the engine's, and while the engine lives it alone reads from it. So what the monitor answers is
/// looked at without being taken (``MonitorPeek``), which works because the engine's thread waits for the freeze
/// and for the thaw.
///
/// Invariants:
/// - P1 A guest is resumed only if it ran when it was stopped: the monitor says STOP before it answers `stop`, and
///   doesn't when there was nothing to stop. Likewise, without RESUME there was nothing to resume.
/// - P2 A `stop` whose answer doesn't come in time has a `cont` queued behind it.
/// - P3 Nothing is read while the engine lives, and everything afterwards.
final class ProcessorHold: Hold, @unchecked Sendable {
  // Sendable: see ``Hold``, one thread at a time uses it.
  private let path: String
  /// -1: it was given to `monitor`.
  private var descriptor: Int32
  private var monitor: GuestMonitor?
  /// From before the freeze was asked for.
  private var mark: MonitorPeek?

  /// For what the engine tells from its own commands.
  private static let id: JSONValue = "strobe-guardian"
  /// QEMU flushes all disks when it stops the processors.
  private static let stopMilliseconds = 30_000
  /// For the answer to `cont`, which is immediate unless the engine stands in the middle of a command.
  private static let contMilliseconds = 1_000
  private static let askedMilliseconds = 10_000
  private static let aloneMilliseconds = 60_000

  init(inheriting descriptor: Int32, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  func freeze(stop: CancellationFlag) -> FreezeAnswer {
    let peek = MonitorPeek(descriptor)
    let deadline = monotonicMilliseconds() + Self.stopMilliseconds
    if let code = send("stop", until: deadline) { return FreezeAnswer(code: code, isOwed: false) }
    switch answer(peek, until: deadline, stop) {
    case .done(let events) where events.contains("STOP"): return FreezeAnswer(code: 0, isOwed: true)
    case .done:
      return FreezeAnswer(code: EBUSY, isOwed: false, text: "its processors stand still already")
    case .failed(let text): return FreezeAnswer(code: EIO, isOwed: false, text: text)
    case .gone: return FreezeAnswer(code: ECONNRESET, isOwed: false)
    case nil:
      // P2
      _ = send("cont", until: monotonicMilliseconds() + Self.contMilliseconds)
      return FreezeAnswer(
        code: stop.isCancelled ? ECANCELED : ETIMEDOUT, isOwed: true,
        text: "the monitor at \(path) does not answer")
    }
  }

  func expectFreeze() { mark = MonitorPeek(descriptor) }

  func mayBeFrozen() -> Bool {
    guard let mark else { return true }
    let deadline = monotonicMilliseconds() + Self.contMilliseconds
    guard send("query-status", until: deadline) == nil else { return true }
    // Answered after the `stop`, if there was one.
    var isStopped = false
    var answers = 0
    while monotonicMilliseconds() < deadline {
      let messages = mark.messages() ?? []
      isStopped = messages.contains { $0["event"] == "STOP" }
      answers = messages.count { $0["id"] == Self.id && $0["return"]?["status"] != nil }
      if isStopped || answers > 0 { break }
      usleep(1000)
    }
    // Without any answer it was asked to stop and ran before: then it is let go.
    return isStopped || answers == 0
  }

  // MARK: let go

  func thaw(isEngineAlive: Bool) -> Int32 {
    isEngineAlive && monitor == nil ? resumeBesideEngine() : resumeAlone()
  }

  private func resumeBesideEngine() -> Int32 {
    let first = MonitorPeek(descriptor)
    let deadline = monotonicMilliseconds() + Self.contMilliseconds
    if send("cont", until: deadline) != nil { return resumeAlone() }
    switch answer(first, until: deadline, nil) {
    // Otherwise it ran: somebody else had resumed it. With a stop under way there is a STOP, too.
    case .done(let events): return events == ["RESUME"] ? 0 : EINVAL
    case .failed: return EIO
    case .gone: return resumeAlone()
    case nil: return resumeInMidLine()
    }
  }

  /// The engine was stopped in the middle of a command, which has swallowed ours; or it reads, and took the answer;
  /// or the monitor hangs.
  private func resumeInMidLine() -> Int32 {
    let peek = MonitorPeek(descriptor)
    let deadline = monotonicMilliseconds() + Self.askedMilliseconds
    if send("cont", after: [0xff], until: deadline) != nil { return resumeAlone() }
    switch answer(peek, until: deadline, nil) {
    case .done: return 0
    case .failed: return EIO
    case .gone: return resumeAlone()
    case nil: return ETIMEDOUT
    }
  }

  private func resumeAlone() -> Int32 {
    let deadline = monotonicMilliseconds() + Self.aloneMilliseconds
    if monitor == nil {
      monitor = GuestMonitor(inheriting: descriptor, path: path)
      descriptor = -1
    }
    while true {
      do throws(StrobeError) {
        if monitor == nil { monitor = try GuestMonitor(connecting: path, until: deadline) }
        _ = try monitor?.resume(until: deadline)
        return 0
      } catch {
        // QEMU itself listens: without it there is no guest.
        if error.reason == .notFound { return EINVAL }
        guard [ECONNRESET, EPIPE, EMSGSIZE].contains(error.errno),
          monotonicMilliseconds() < deadline
        else { return error.errno == 0 ? EIO : error.errno }
      }
      monitor = nil
      usleep(100_000)
    }
  }

  // MARK: beside the engine

  private enum Answer {
    /// The STOP and RESUME events that came with it.
    case done(events: [String])
    case failed(String)
    case gone
  }

  /// - Returns: nil when none came in time.
  private func answer(_ peek: MonitorPeek, until deadline: Int, _ stop: CancellationFlag?)
    -> Answer?
  {
    while true {
      guard let messages = peek.messages() else { return .gone }
      if let reply = messages.first(where: { $0["id"] == Self.id }) {
        if reply["return"] != nil {
          let events = messages.compactMap { $0["event"]?.text }
          return .done(events: events.filter { $0 == "STOP" || $0 == "RESUME" })
        }
        return .failed(reply["error"]?["desc"]?.text ?? "the monitor refused")
      }
      if monotonicMilliseconds() >= deadline || stop?.isCancelled == true { return nil }
      usleep(1000)
    }
  }

  /// - Returns: nil, or an errno.
  private func send(_ command: String, after start: [UInt8] = [], until deadline: Int) -> Int32? {
    let request: JSONValue = ["execute": .string(command), "id": Self.id]
    let bytes = start + Array(request.line.utf8) + [UInt8(ascii: "\n")]
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes[done...].withUnsafeBytes {
        unsafe Glibc.send(
          descriptor, $0.baseAddress, $0.count,
          Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
      }
      if count >= 0 {
        done += count
        continue
      }
      guard errno == EAGAIN || errno == EINTR else { return errno }
      if monotonicMilliseconds() >= deadline { return ETIMEDOUT }
      usleep(1000)
    }
    return nil
  }
}
