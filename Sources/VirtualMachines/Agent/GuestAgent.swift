import Glibc
package import Platform

/// The guest agent (qemu-ga) of a guest, over the UNIX socket that its hypervisor gives it.
///
/// The agent serves one connection at a time, keeps no session apart from the one before, and answers in the order of the
/// commands without naming them. Therefore every command is preceded by a synchronisation: what comes before its
/// answer belongs to somebody else, or came twice.
///
/// Invariants:
/// - A1 Nothing is frozen before the agent has answered a synchronisation in time. So a hung agent costs its
///   time limit and nothing else.
/// - A2 Whenever a freeze was sent and its end isn't known, a thaw is sent behind it before the limit is
///   reported: a guest that wakes up late thaws what it freezes late.
/// - A3 ``mayBeFrozen`` is false only when the agent said that nothing is frozen, or nothing was sent.
///
/// Source: qemu, qga/qapi-schema.json (guest-sync-delimited, guest-fsfreeze-*). Hooks in the guest (`qemu-ga -F`)
/// are run by the agent itself, within its freeze and its thaw.
package final class GuestAgent {
  /// Bytes of a line that is read; the replies to what is asked here are small.
  package static let lineLimit = 1 << 20

  package let path: String
  /// Whether a freeze was sent that wasn't ended since.
  package private(set) var mayBeFrozen = false
  private let socket: LineSocket
  /// Of the synchronisations on this connection: their answers may come twice, and are never a count.
  private var identifiers: Set<Int> = []

  private static let freezeCommand = "guest-fsfreeze-freeze"
  private static let freezeListCommand = "guest-fsfreeze-freeze-list"
  private static let thawCommand = "guest-fsfreeze-thaw"
  private static let synchronization = "guest-sync-delimited"
  /// After this long a thaw is sent again: the agent may have been restarted with the first one in its hands.
  package var resendMilliseconds = 5_000

  /// - Throws: `notFound` when nobody listens, `busy` when no connection is to be had, `system`.
  package init(connecting path: String, milliseconds: Int) throws(StrobeError) {
    self.path = path
    socket = try LineSocket(
      connecting: path, milliseconds: milliseconds, lineLimit: Self.lineLimit)
  }

  /// Goes on with a connection that another process made and doesn't use any more.
  package init(inheriting descriptor: Int32, path: String) {
    self.path = path
    socket = LineSocket(inheriting: descriptor, path: path, lineLimit: Self.lineLimit)
  }

  /// The connection, for whoever inherits it.
  package var number: Int32 { socket.number }

  /// The agent has one client: another connection is served when this one is over, for everybody who has it.
  package func hangUp() { socket.hangUp() }

  // MARK: commands

  /// Waits until the agent answers, and drops what it said before.
  ///
  /// - Throws: `system` with ETIMEDOUT: it hangs, isn't there, or serves somebody else; ECONNRESET: the
  ///   connection is gone; EMSGSIZE: a line doesn't end.
  package func synchronize(milliseconds: Int, stop: CancellationFlag? = nil) throws(StrobeError) {
    try synchronize(until: monotonicMilliseconds() + milliseconds, stop)
  }

  package func ping(milliseconds: Int) throws(StrobeError) {
    _ = try call("guest-ping", until: monotonicMilliseconds() + milliseconds)
  }

  /// Whether the agent holds file systems frozen, whoever asked for that.
  package func isFrozen(milliseconds: Int) throws(StrobeError) -> Bool {
    try isFrozen(until: monotonicMilliseconds() + milliseconds)
  }

  /// Freezes the guest's file systems.
  ///
  /// - Parameters:
  ///   - mountPoints: in the guest; nil: all.
  ///   - milliseconds: for everything, the synchronisation included.
  /// - Returns: how many are frozen.
  /// - Throws: `system`: ENOTSUP: the agent has no such command; EBUSY: somebody else froze them;
  ///   ETIMEDOUT, ECONNRESET: see ``mayBeFrozen``; EIO: it failed, the message has the agent's words. `cancelled`.
  package func freeze(
    mountPoints: [String]? = nil, milliseconds: Int, stop: CancellationFlag? = nil
  ) throws(StrobeError) -> Int {
    let deadline = monotonicMilliseconds() + milliseconds
    try synchronize(until: deadline, stop)
    let command = mountPoints == nil ? Self.freezeCommand : Self.freezeListCommand
    let arguments = mountPoints.map {
      JSONValue.object(["mountpoints": .array($0.map(JSONValue.string))])
    }
    let reply: AgentReply
    do throws(StrobeError) {
      mayBeFrozen = true
      try send(Self.line(command, arguments), command, until: deadline)
      reply = try self.reply(to: command, until: deadline, stop)
    } catch {
      // A2; a connection that is gone takes no more.
      try? send([0xff] + Self.line(Self.thawCommand), Self.thawCommand, until: deadline + 100)
      throw error
    }
    switch reply {
    case .returned(.integer(let count)) where count >= 0: return count
    case .failed("CommandNotFound", let text):
      mayBeFrozen = false
      let isFrozen = (try? isFrozen(milliseconds: milliseconds)) == true
      throw failure(isFrozen ? EBUSY : ENOTSUP, command, text)
    case .failed(_, let text): throw try ended(failure(EIO, command, text), milliseconds)
    case .returned: throw try ended(failure(EPROTO, command, "it returned no number"), milliseconds)
    }
  }

  /// Ends whatever is frozen.
  ///
  /// The thaw is sent together with its synchronisation, so that it is under way also when nobody answers.
  ///
  /// - Returns: how many file systems were thawed; 0 also when the guest ended the freeze by itself.
  /// - Throws: `system`: ETIMEDOUT, ECONNRESET, EMSGSIZE, ENOTSUP; EIO with the agent's words when it says that
  ///   they are frozen still.
  package func thaw(milliseconds: Int) throws(StrobeError) -> Int {
    let deadline = monotonicMilliseconds() + milliseconds
    var sent: [Int] = []
    var answered: Int?
    while true {
      let request = newSynchronization()
      sent.append(request.identifier)
      try send(request.bytes + Self.line(Self.thawCommand), Self.thawCommand, until: deadline)
      let turn = min(deadline, monotonicMilliseconds() + resendMilliseconds)
      guard let reply = try replyToThaw(sent, &answered, until: turn) else {
        guard monotonicMilliseconds() < deadline else { throw timedOut(Self.thawCommand) }
        continue
      }
      if case .returned(.integer(let count)) = reply, count >= 0 {
        mayBeFrozen = false
        return count
      }
      guard case .failed(let kind, let text) = reply, kind != "CommandNotFound" else {
        throw failure(ENOTSUP, Self.thawCommand, "the agent can't thaw")
      }
      // Windows ends a freeze after ten seconds by itself, and then has nothing to thaw: an error.
      guard try !isFrozen(until: max(deadline, monotonicMilliseconds() + 1000)) else {
        throw failure(EIO, Self.thawCommand, text)
      }
      mayBeFrozen = false
      return 0
    }
  }

  // MARK: how they are made

  private func synchronize(until deadline: Int, _ stop: CancellationFlag?) throws(StrobeError) {
    let request = newSynchronization()
    try send(request.bytes, Self.synchronization, until: deadline)
    while let line = try line(until: deadline, stop) {
      if AgentReply(line: line) == .returned(.integer(request.identifier)) { return }
    }
    throw timedOut(Self.synchronization)
  }

  private func isFrozen(until deadline: Int) throws(StrobeError) -> Bool {
    let command = "guest-fsfreeze-status"
    switch try call(command, until: deadline) {
    case "frozen": return true
    case "thawed": return false
    default: throw failure(EPROTO, command, "it returned neither frozen nor thawed")
    }
  }

  /// Runs a command and waits for what it returns.
  private func call(_ command: String, until deadline: Int) throws(StrobeError) -> JSONValue {
    try synchronize(until: deadline, nil)
    try send(Self.line(command), command, until: deadline)
    switch try reply(to: command, until: deadline, nil) {
    case .returned(let value): return value
    case .failed("CommandNotFound", let text): throw failure(ENOTSUP, command, text)
    case .failed(_, let text): throw failure(EIO, command, text)
    }
  }

  /// What a failed freeze left is ended; what it failed with is passed on.
  private func ended(_ error: StrobeError, _ milliseconds: Int) throws(StrobeError) -> StrobeError {
    _ = try? thaw(milliseconds: milliseconds)
    return error
  }

  private func reply(
    to command: String, until deadline: Int, _ stop: CancellationFlag?
  ) throws(StrobeError) -> AgentReply {
    while let line = try line(until: deadline, stop) {
      if let reply = AgentReply(line: line), !isSynchronization(reply) { return reply }
    }
    throw timedOut(command)
  }

  /// What answers one of the thaws that were sent.
  ///
  /// A thaw whose hooks take their time is answered after the next one was sent: that count is the true one, for the
  /// next finds nothing frozen. An error there may be about the byte before the next synchronisation, so only the
  /// last thaw's counts.
  ///
  /// - Parameters:
  ///   - sent: their synchronisations; earlier ones' answers don't count.
  ///   - answered: the synchronisation that was answered last.
  /// - Returns: nil when there was none in time.
  private func replyToThaw(
    _ sent: [Int], _ answered: inout Int?, until deadline: Int
  ) throws(StrobeError) -> AgentReply? {
    while let line = try line(until: deadline, nil) {
      guard let reply = AgentReply(line: line) else { continue }
      if case .returned(.integer(let number)) = reply {
        if sent.contains(number) { answered = number }
        if answered != nil && !isSynchronization(reply) { return reply }
      } else if answered == sent.last {
        return reply
      }
    }
    return nil
  }

  private func isSynchronization(_ reply: AgentReply) -> Bool {
    if case .returned(.integer(let number)) = reply { identifiers.contains(number) } else { false }
  }

  private static func line(_ command: String, _ arguments: JSONValue? = nil) -> [UInt8] {
    var fields: [String: JSONValue] = ["execute": .string(command)]
    fields["arguments"] = arguments
    return Array(JSONValue.object(fields).line.utf8) + [UInt8(ascii: "\n")]
  }

  /// A request that no line is mistaken for the answer of. The byte before it ends whatever the agent has of a
  /// command that somebody else didn't finish; it answers that with an error, which is skipped.
  private func newSynchronization() -> (bytes: [UInt8], identifier: Int) {
    // No count of file systems is as large.
    let identifier = Int.random(in: 1 << 32..<1 << 52)
    identifiers.insert(identifier)
    let arguments: JSONValue = ["id": .integer(identifier)]
    return ([0xff] + Self.line(Self.synchronization, arguments), identifier)
  }

  private func send(_ bytes: [UInt8], _ command: String, until deadline: Int) throws(StrobeError) {
    do throws(StrobeError) {
      try socket.send(bytes, milliseconds: max(1, deadline - monotonicMilliseconds()))
    } catch {
      switch error.errno {
      case EPIPE: throw .system(ECONNRESET, call: command, object: path)
      case EAGAIN: throw timedOut(command)
      default: throw error
      }
    }
  }

  private func line(until deadline: Int, _ stop: CancellationFlag?) throws(StrobeError) -> [UInt8]?
  {
    // Also when lines come faster than they are read.
    if monotonicMilliseconds() > deadline { return nil }
    return try socket.line(until: deadline, stop: stop)
  }

  private func timedOut(_ command: String) -> StrobeError {
    StrobeError(
      .system(errno: ETIMEDOUT, call: command, object: path),
      "the guest agent at \(path) does not answer (\(command))",
      advice: "is it running in the guest, and is nobody else connected to it?")
  }

  private func failure(_ code: Int32, _ command: String, _ text: String) -> StrobeError {
    StrobeError(
      .system(errno: code, call: command, object: path),
      "the guest agent at \(path) failed: \(command): \(Self.printable(text))")
  }

  /// The guest's words, fit for a terminal.
  private static func printable(_ text: String) -> String {
    String(
      String.UnicodeScalarView(
        text.unicodeScalars.prefix(300).map { $0.value < 32 || 127..<160 ~= $0.value ? " " : $0 }))
  }
}
