import Glibc
package import Platform

/// A connection to QEMU's monitor, or to that of qemu-storage-daemon.
///
/// - One thread uses it. Another process that inherited the descriptor may write whole commands meanwhile
///   (the guardian lets a guest go on); what is answered to those is passed over, and so are errors without an id:
///   the guardian begins with a byte that QEMU complains of, to end a command that was sent by halves.
/// - Every command has a limit. An answer that comes later is passed over, too. Once one has come to nothing, the next
///   have a shorter limit until QEMU says something again: what hangs holds nobody up a second time.
///
/// Source: docs/interop/qmp-spec.rst of QEMU.
package final class QMPConnection {
  /// Events that nobody asked for are dropped, oldest first.
  static let eventLimit = 1024
  package static let commandMilliseconds = 30_000
  static let deafMilliseconds = 10_000

  private let socket: LineSocket
  private var sent = 0
  package private(set) var events: [QMPEvent] = []
  /// The other end is gone: nothing can be said to it any more.
  package private(set) var isBroken = false
  /// Ends the wait for any answer; nil while what was begun has to be undone.
  package var stop: CancellationFlag?
  /// The last command was given up.
  private var isDeaf = false

  /// - Parameters:
  ///   - milliseconds: limit for the greeting.
  ///   - stop: see ``stop``.
  /// - Throws: `busy` when a monitor is there that doesn't greet: it has one client.
  package init(
    connecting path: String, milliseconds: Int, stop: CancellationFlag? = nil
  ) throws(StrobeError) {
    self.stop = stop
    socket = try LineSocket(connecting: path, milliseconds: milliseconds)
    let deadline = monotonicMilliseconds() + milliseconds
    try Self.awaitGreeting(socket, until: deadline, stop)
    _ = try execute("qmp_capabilities", milliseconds: milliseconds)
  }

  package var path: String { socket.path }
  /// The descriptor, for a process that inherits it.
  package var number: Int32 { socket.number }

  /// Who made the socket, which may have been somebody with more rights than it has by now.
  var peer: (process: Int32, user: UInt32, group: UInt32)? {
    // struct ucred, see unix(7).
    var peer: (process: Int32, user: UInt32, group: UInt32) = (0, 0, 0)
    var size = socklen_t(12)
    let result = unsafe getsockopt(number, SOL_SOCKET, SO_PEERCRED, &peer, &size)
    return result == 0 ? peer : nil
  }

  /// A monitor has one client: another connection is served when this one is over.
  package func hangUp() { socket.hangUp() }

  private static func awaitGreeting(
    _ socket: LineSocket, until deadline: Int, _ stop: CancellationFlag?
  ) throws(StrobeError) {
    guard let line = try socket.line(until: deadline, stop: stop) else {
      throw StrobeError(
        .busy, "the monitor at \(socket.path) doesn't answer: another client holds it",
        advice: "if libvirt runs the guest, use --libvirt; else give QEMU a second -qmp socket")
    }
    guard let greeting = JSONValue(decoding: line), greeting["QMP"] != nil else {
      throw StrobeError(
        .usage, "what listens at \(socket.path) is no QEMU monitor: it says \(excerpt(line))",
        advice: "name the socket of -qmp, not that of -monitor or of the guest agent")
    }
  }

  /// - Throws: ``QMPError/failure(of:at:)`` when QEMU says no; `system` with ETIMEDOUT, EPROTO or
  ///   ECONNRESET when it says nothing of use.
  @discardableResult
  package func execute(
    _ command: String, _ arguments: [String: JSONValue] = [:],
    milliseconds: Int = commandMilliseconds
  ) throws(StrobeError) -> JSONValue {
    switch try ask(command, arguments, milliseconds: milliseconds) {
    case .success(let value): return value
    case .failure(let error): throw error.failure(of: command, at: path)
    }
  }

  /// As ``execute(_:_:milliseconds:)``, for who has to know what QEMU says.
  package func ask(
    _ command: String, _ arguments: [String: JSONValue] = [:],
    milliseconds: Int = commandMilliseconds
  ) throws(StrobeError) -> Result<JSONValue, QMPError> {
    sent += 1
    let id = JSONValue.string("strobe-\(sent)")
    var request: [String: JSONValue] = ["execute": .string(command), "id": id]
    if !arguments.isEmpty { request["arguments"] = .object(arguments) }
    let patience = isDeaf ? min(milliseconds, Self.deafMilliseconds) : milliseconds
    isDeaf = true
    do throws(StrobeError) {
      let line = JSONValue.object(request).line + "\n"
      try socket.send(Array(line.utf8), milliseconds: patience)
    } catch {
      throw broken(error, command)
    }
    let answer = try answer(to: id, command, patience, thenAtMost: milliseconds)
    isDeaf = false
    return answer
  }

  /// - Parameters:
  ///   - patience: milliseconds until QEMU says anything.
  ///   - whole: milliseconds for the answer when it does.
  private func answer(
    to id: JSONValue, _ command: String, _ patience: Int, thenAtMost whole: Int
  ) throws(StrobeError) -> Result<JSONValue, QMPError> {
    let start = monotonicMilliseconds()
    var limit = patience
    var complaint = ""
    while true {
      guard let message = try receive(until: start + limit, command) else {
        throw problem(ETIMEDOUT, command, "no answer for \(limit) ms" + complaint)
      }
      limit = whole
      guard message["id"] == id else {
        if message["id"] == nil, let error = message["error"] {
          complaint = ", but a complaint about no command in particular: \(QMPError(error).text)"
        }
        continue
      }
      if let value = message["return"] { return .success(value) }
      if let error = message["error"] { return .failure(QMPError(error)) }
    }
  }

  /// All actions or none, at one instant.
  package func transaction(_ actions: [JSONValue]) throws(StrobeError) {
    if actions.isEmpty { return }
    try execute("transaction", ["actions": .array(actions)])
  }

  /// Collects the events that have come, without waiting.
  package func collectEvents() throws(StrobeError) {
    // Who sends events without end is left to it.
    let limit = monotonicMilliseconds() + 1000
    while monotonicMilliseconds() < limit,
      try receive(until: monotonicMilliseconds(), "events") != nil
    {}
  }

  /// Takes the first event that matches, waiting for it.
  ///
  /// - Returns: nil when none came within the limit.
  package func waitForEvent(milliseconds: Int, where matches: (QMPEvent) -> Bool)
    throws(StrobeError) -> QMPEvent?
  {
    let deadline = monotonicMilliseconds() + milliseconds
    while true {
      if let index = events.firstIndex(where: matches) { return events.remove(at: index) }
      guard try receive(until: deadline, "events") != nil else { return nil }
    }
  }

  /// - Parameter name: nil: all of them.
  package func forgetEvents(named name: String? = nil) {
    events.removeAll { name == nil || $0.name == name }
  }

  /// One message; an event is noted, too.
  private func receive(until deadline: Int, _ command: String) throws(StrobeError) -> JSONValue? {
    let line: [UInt8]?
    do throws(StrobeError) {
      line = try socket.line(until: deadline, stop: stop)
    } catch {
      if error.reason == .cancelled { throw error }
      throw broken(error, command)
    }
    guard let line else { return nil }
    guard let message = JSONValue(decoding: line), message.fields != nil else {
      throw problem(EPROTO, command, "the answer is no QMP message: \(Self.excerpt(line))")
    }
    if let name = message["event"]?.text {
      if events.count == Self.eventLimit { events.removeFirst() }
      events.append(QMPEvent(name: name, data: message["data"] ?? [:]))
    }
    return message
  }

  private func broken(_ error: StrobeError, _ command: String) -> StrobeError {
    isBroken = true
    guard error.errno == ECONNRESET || error.errno == EPIPE else { return error }
    return error.explained(
      "\(path): \(command): QEMU ended, or its monitor was closed", advice: "is the guest running?")
  }

  private func problem(_ code: Int32, _ command: String, _ text: String) -> StrobeError {
    StrobeError(
      .system(errno: code, call: command, object: path), "\(path): \(command): \(text)")
  }

  private static func excerpt(_ line: [UInt8]) -> String {
    let text = line.prefix(80).map { (0x20..<0x7F).contains($0) ? $0 : UInt8(ascii: "?") }
    return "'" + String(decoding: text, as: UTF8.self) + "'"
  }
}

/// Something that happened to a guest.
package struct QMPEvent: Sendable, Equatable {
  package let name: String
  package let data: JSONValue
}
