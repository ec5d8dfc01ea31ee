import Glibc

/// What engine and guardian say to each other: one datagram of fixed size on a SOCK_SEQPACKET pair, which
/// keeps order and boundaries. Both sides are the same program, so that the layout in memory serves.
///
/// Engine to guardian:
///
/// | kind | meaning |
/// |---|---|
/// | begin | the deadline counts from now |
/// | freeze | freeze place `index` |
/// | thaw | thaw all; answered with `thawed` for each place, then `thawDone` |
/// | hooksStarted, hooksFinished | between the two, the guardian owes the `post-thaw` hook |
/// | hookProcess | the process group `code` of a hook runs, or none any more: 0 |
///
/// Guardian to engine:
///
/// | kind | meaning |
/// |---|---|
/// | ready | memory locked (`code` 0 or errno), out of the OOM killer's reach (`index` likewise) |
/// | text | a piece of what the next `frozen` of `index` is explained with |
/// | frozen | the freeze of `index` returned `code` (0 or errno) after `time` nanoseconds; `detail`: 1 when it is owed a thaw |
/// | deadline | the deadline passed: everything is being thawed |
/// | thawing | the request to thaw has arrived |
/// | thawed | `code` of the thaw of `index`, or ``neverFrozen``, ``stillPending`` |
/// | thawDone | `time`: nanoseconds from before the first freeze to after the last thaw; `code`: 1 when the deadline struck |
struct GuardianMessage {
  enum Kind: Int32 {
    case begin = 1
    case freeze, thaw, hooksStarted, hooksFinished, hookProcess
    case ready = 101
    case frozen, deadline, thawing, thawed, thawDone, text
  }

  static let neverFrozen: Int32 = -1
  static let stillPending: Int32 = -2

  private var kindNumber: Int32
  var index: Int32
  var code: Int32
  var detail: Int32
  var time: Int64

  init(_ kind: Kind, index: Int = 0, code: Int32 = 0, detail: Int32 = 0, time: Int64 = 0) {
    kindNumber = kind.rawValue
    self.index = Int32(index)
    self.code = code
    self.detail = detail
    self.time = time
  }

  var kind: Kind? { Kind(rawValue: kindNumber) }

  /// Sends without waiting for room: nothing may hold up a thaw. See send(2).
  ///
  /// - Returns: whether the other end, as far as known, still lives.
  @discardableResult
  func send(to socket: Int32) -> Bool {
    while true {
      let count = unsafe withUnsafeBytes(of: self) {
        unsafe Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
      }
      if count >= 0 { return true }
      if errno != EINTR { return errno == EAGAIN }
    }
  }

  /// Sends, and waits a little for room: when nothing is frozen any more.
  func sendPatiently(to socket: Int32) {
    for _ in 0..<1000 {
      var request = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
      if unsafe poll(&request, 1, 1) == 0 { continue }
      send(to: socket)
      return
    }
  }

  // MARK: text

  /// Bytes of a message that carry a piece of text: from `code` on.
  private static let pieceStart = 8
  private static let pieceSize = MemoryLayout<GuardianMessage>.size - pieceStart
  /// More isn't sent: a message must never wait for room.
  private static let textLimit = 20 * pieceSize

  static func sendText(_ text: String, of index: Int, to socket: Int32) {
    var rest = Array(text.utf8.prefix(textLimit))[...]
    while !rest.isEmpty {
      var message = GuardianMessage(.text, index: index)
      let piece = rest.prefix(pieceSize)
      unsafe withUnsafeMutableBytes(of: &message) { memory in
        for (offset, byte) in piece.enumerated() { unsafe memory[pieceStart + offset] = byte }
      }
      message.send(to: socket)
      rest = rest.dropFirst(pieceSize)
    }
  }

  /// What a message of text carries.
  var piece: [UInt8] {
    unsafe withUnsafeBytes(of: self) { memory in
      unsafe Array(memory[Self.pieceStart...].prefix { $0 != 0 })
    }
  }

  enum Received {
    case message(GuardianMessage)
    case nothing
    case end
  }

  /// Receives without waiting. What was sent before the other end died comes first, then `end`.
  static func receive(from socket: Int32) -> Received {
    var message = GuardianMessage(.begin)
    // ECONNRESET says that the other end died with messages unread; its own are still to be had.
    for _ in 0..<8 {
      let count = unsafe withUnsafeMutableBytes(of: &message) {
        unsafe recv(socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
      }
      if count == MemoryLayout<GuardianMessage>.size { return .message(message) }
      if count == 0 { return .end }
      if count > 0 || errno == EINTR || errno == ECONNRESET { continue }
      return errno == EAGAIN ? .nothing : .end
    }
    return .nothing
  }
}
