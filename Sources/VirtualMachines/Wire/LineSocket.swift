import CLinux
import Glibc
package import Platform

/// A UNIX stream socket on which both sides speak lines: QMP and the guest agent.
///
/// One thread uses it at a time. Every wait has a limit: what is at the other end may hang, die in the middle of
/// a line, or be a guest that means harm (a line has a greatest length).
package final class LineSocket {
  package static let lineLimit = 64 << 20

  package let path: String
  private let descriptor: Int32
  private let lineLimit: Int
  private var buffer: [UInt8] = []
  /// How much of `buffer` is known to hold no line end.
  private var searched = 0
  /// Where a read puts what has come.
  private var piece = [UInt8](repeating: 0, count: 64 << 10)

  /// - Parameter lineLimit: bytes that a line may have.
  /// - Throws: `notFound` when nothing is there, `busy` when nobody answers within the limit, `system`.
  package init(
    connecting path: String, milliseconds: Int, lineLimit: Int = LineSocket.lineLimit
  ) throws(StrobeError) {
    self.path = path
    self.lineLimit = lineLimit
    descriptor = try Self.connect(path, milliseconds)
  }

  /// Takes over a connection that another process made, and will close it.
  package init(
    inheriting descriptor: Int32, path: String, lineLimit: Int = LineSocket.lineLimit
  ) {
    self.path = path
    self.lineLimit = lineLimit
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// For whoever inherits it.
  package var number: Int32 { descriptor }

  /// Ends the connection for everybody who has it.
  func hangUp() { shutdown(descriptor, Int32(SHUT_RDWR)) }

  private static func connect(_ path: String, _ milliseconds: Int) throws(StrobeError) -> Int32 {
    let file = try UnixSocket.make(path)
    // A full backlog makes connect(2) wait: for as long as a send may.
    setLimit(file.number, milliseconds)
    do throws(StrobeError) {
      try UnixSocket.connect(file.number, to: path)
    } catch {
      throw explained(error, path)
    }
    return try systemCall("fcntl", path) { fcntl(file.number, F_DUPFD_CLOEXEC, 3) }
  }

  private static func explained(_ error: StrobeError, _ path: String) -> StrobeError {
    switch error.errno {
    case ENOENT:
      StrobeError(.notFound, "there is no socket \(path)", advice: "is the guest running?")
    case ECONNREFUSED:
      StrobeError(
        .notFound, "nobody listens at socket \(path)", advice: "the guest that made it has ended")
    case EAGAIN:
      StrobeError(
        .busy, "socket \(path) takes no more connections", advice: "somebody else is connected")
    default: error
    }
  }

  private static func setLimit(_ number: Int32, _ milliseconds: Int) {
    // 0 would be no limit.
    let milliseconds = max(1, milliseconds)
    var limit = timeval(
      tv_sec: milliseconds / 1000, tv_usec: suseconds_t(milliseconds % 1000 * 1000))
    unsafe setsockopt(
      number, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  /// Sends all of `bytes`.
  ///
  /// - Throws: `system` with EPIPE or ECONNRESET when the other end is gone, EAGAIN when it doesn't read.
  package func send(_ bytes: [UInt8], milliseconds: Int) throws(StrobeError) {
    let deadline = monotonicMilliseconds() + milliseconds
    var done = 0
    while done < bytes.count {
      // For all of it, however it is cut up.
      Self.setLimit(descriptor, deadline - monotonicMilliseconds())
      done += try systemCall("send", path) {
        unsafe bytes[done...].withUnsafeBytes {
          unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
      }
    }
  }

  /// The next line, without its end.
  ///
  /// - Parameter deadline: of ``monotonicMilliseconds()``.
  /// - Returns: nil when there was none until the deadline; what has come of one is kept.
  /// - Throws: `system` with ECONNRESET when the other end is gone, EMSGSIZE when a line doesn't end.
  package func line(until deadline: Int, stop: CancellationFlag? = nil) throws(StrobeError)
    -> [UInt8]?
  {
    // Also when lines are there: who sends them without end must not hold anybody up.
    guard monotonicMilliseconds() <= deadline else { return nil }
    try stop?.check()
    while true {
      if let end = buffer[searched...].firstIndex(of: UInt8(ascii: "\n")) {
        let line = Array(buffer[..<end])
        buffer.removeSubrange(...end)
        searched = 0
        return line.last == UInt8(ascii: "\r") ? line.dropLast() : line
      }
      searched = buffer.count
      guard buffer.count < lineLimit else {
        throw .system(EMSGSIZE, call: "read", object: path)
      }
      guard try receive(until: deadline, stop) else { return nil }
    }
  }

  private func receive(until deadline: Int, _ stop: CancellationFlag?) throws(StrobeError) -> Bool {
    while true {
      try stop?.check()
      let left = deadline - monotonicMilliseconds()
      var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      // Somebody may cancel meanwhile.
      let ready = unsafe poll(&request, 1, Int32(clamping: max(0, min(left, 100))))
      if ready == 0 && left > 0 || ready < 0 && errno == EINTR { continue }
      if ready == 0 { return false }
      break
    }
    let count = unsafe piece.withUnsafeMutableBytes {
      unsafe recv(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
    }
    let code = errno
    buffer += piece[..<max(count, 0)]
    if count > 0 || count < 0 && (code == EAGAIN || code == EINTR) { return true }
    throw .system(count == 0 ? ECONNRESET : code, call: "read", object: path)
  }
}
