import Glibc
import Platform
import VirtualMachines

/// A QMP monitor that nobody else reads: what an outage needs of it.
///
/// Source: qemu, docs/interop/qmp-spec.rst.
final class GuestMonitor {
  private let socket: LineSocket
  private var commands = 0
  private static let lineLimit = 16 << 20

  /// Connects anew. Where somebody else is connected, the greeting doesn't come.
  ///
  /// - Parameter deadline: of `monotonicMilliseconds()`.
  init(connecting path: String, until deadline: Int) throws(StrobeError) {
    socket = try LineSocket(
      connecting: path, milliseconds: max(1, deadline - monotonicMilliseconds()),
      lineLimit: Self.lineLimit)
    _ = try message(until: deadline) { $0["QMP"] }
    _ = try execute("qmp_capabilities", until: deadline)
  }

  /// Goes on with the connection of a process that is gone, capabilities negotiated.
  init(inheriting descriptor: Int32, path: String) {
    socket = LineSocket(inheriting: descriptor, path: path, lineLimit: Self.lineLimit)
  }

  /// Lets the processors run if they are stopped.
  ///
  /// - Returns: whether they were.
  func resume(until deadline: Int) throws(StrobeError) -> Bool {
    let status = try execute("query-status", until: deadline)["status"]?.text
    // Stopped for another reason (an I/O error, a migration), it is not ours to go on.
    guard status == "paused" else { return false }
    _ = try execute("cont", until: deadline)
    return true
  }

  private func execute(_ command: String, until deadline: Int) throws(StrobeError) -> JSONValue {
    commands += 1
    // Told from the replies to whoever had the connection before.
    let id: JSONValue = .string("strobe-guardian-\(commands)")
    let request: JSONValue = ["execute": .string(command), "id": id]
    // A control character ends the command in whose middle that one may have died.
    try socket.send(
      [0xff] + Array(request.line.utf8) + [UInt8(ascii: "\n")],
      milliseconds: max(1, deadline - monotonicMilliseconds()))
    let reply = try message(until: deadline) { $0["id"] == id ? $0 : nil }
    if let value = reply["return"] { return value }
    throw StrobeError(
      .system(errno: EIO, call: command, object: socket.path),
      "the monitor at \(socket.path) refused \(command): \(reply["error"]?["desc"]?.text ?? "?")")
  }

  private func message(
    until deadline: Int, _ isWanted: (JSONValue) -> JSONValue?
  ) throws(StrobeError) -> JSONValue {
    while let line = try socket.line(until: deadline) {
      let message = JSONValue(decoding: line, bracketLimit: MonitorPeek.bracketLimit)
      if let found = message.flatMap(isWanted) { return found }
    }
    throw StrobeError(
      .system(errno: ETIMEDOUT, call: "read", object: socket.path),
      "the monitor at \(socket.path) does not answer", advice: "is somebody else connected to it?")
  }
}
