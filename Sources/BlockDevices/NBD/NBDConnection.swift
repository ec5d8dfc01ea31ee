import CNBD
import Glibc
import Platform

/// One connection to an NBD export, through libnbd.
///
/// A thread uses it at a time. Source: libnbd(3), and
/// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
@safe final class NBDConnection: @unchecked Sendable {
  // Sendable: whoever took it from its disk is alone with it, and libnbd locks each handle for itself.
  let handle: OpaquePointer
  /// The URI without what is secret in it, for messages.
  let name: String

  /// Milliseconds that connecting and the handshake may take.
  private static let connectMilliseconds = 20_000
  /// Milliseconds after which a server that answers nothing at all counts as dead.
  static let silenceMilliseconds = 120_000

  /// - Parameters:
  ///   - contexts: metadata contexts to negotiate; those that the server doesn't know are left out.
  /// - Throws: `notFound` when nobody answers or there is no such export, `usage` for a URI that is none.
  init(_ uri: String, contexts: [String], stop: CancellationFlag) throws(StrobeError) {
    name = NBDDisk.displayed(uri)
    guard let handle = unsafe nbd_create() else {
      throw StrobeError(.system(errno: ENOMEM, call: "nbd_create", object: name), Self.lastError())
    }
    unsafe self.handle = unsafe handle
    for context in contexts { unsafe nbd_add_meta_context(handle, context) }
    guard unsafe nbd_aio_connect_uri(handle, uri) == 0 else { throw refused(uri) }
    let limit = monotonicMilliseconds() + Self.connectMilliseconds
    while true {
      if unsafe nbd_aio_is_ready(handle) == 1 { return }
      try stop.check()
      guard unsafe nbd_aio_is_connecting(handle) == 1, monotonicMilliseconds() < limit else {
        throw StrobeError(
          .busy, "the NBD server of \(name) doesn't answer",
          advice: "does it take one client only, and is there one? (qemu-nbd: --shared=0)")
      }
      if unsafe nbd_poll(handle, 100) == -1 { throw refused(uri) }
    }
  }

  /// Buffers of requests that may still be answered.
  private var orphans: [BufferBox] = []

  deinit {
    // First: until then they may be written to.
    unsafe nbd_close(handle)
    orphans = []
  }

  /// Keeps a buffer for as long as the connection.
  func keep(_ buffer: BufferBox) { orphans.append(buffer) }

  /// What libnbd says of the last failure of this thread, without the name of its function.
  static func lastError() -> String {
    guard let text = unsafe nbd_get_error() else { return "unknown" }
    let message = unsafe String(cString: text)
    guard let colon = message.firstRange(of: ": ") else { return message }
    return message.hasPrefix("nbd_") ? String(message[colon.upperBound...]) : message
  }

  private func refused(_ uri: String) -> StrobeError {
    let code = nbd_get_errno()
    let text = "\(name) can't be opened: \(Self.lastError())"
    switch code {
    case EINVAL where !uri.contains("://"):
      return StrobeError(
        .usage, text, advice: "write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH")
    case ENOENT, ECONNREFUSED, ENOTCONN, 0:
      return StrobeError(
        .notFound, text, advice: "does the server run? nbdinfo --list shows exports")
    default: return StrobeError(.system(errno: code, call: "connect", object: name), text)
    }
  }

  /// The failure of a call just now.
  func failure(_ call: String, at offset: Int? = nil) -> StrobeError {
    let code = nbd_get_errno()
    let place = offset.map { "\(name) at byte \($0)" } ?? name
    return StrobeError(
      .system(errno: code == 0 ? EIO : code, call: call, object: place),
      "\(call) \(place): \(Self.lastError())")
  }

  /// Waits for a command that was given, to its end or until it takes too long.
  ///
  /// - Parameters:
  ///   - cookie: what libnbd gave for it, -1 when it didn't take it.
  ///   - milliseconds: how long it may take.
  func finish(
    _ cookie: Int64, _ call: String, at offset: Int?,
    within milliseconds: Int = silenceMilliseconds,
    stop: CancellationFlag
  ) throws(StrobeError) {
    guard cookie > 0 else { throw failure(call, at: offset) }
    let limit = monotonicMilliseconds() + milliseconds
    while true {
      switch unsafe nbd_aio_command_completed(handle, UInt64(cookie)) {
      case 1: return
      case 0: break
      default: throw failure(call, at: offset)
      }
      try stop.check()
      guard unsafe nbd_poll(handle, 100) != -1 else { throw failure(call, at: offset) }
      guard monotonicMilliseconds() < limit else {
        throw silence(call, milliseconds)
      }
    }
  }

  /// Breaks the connection, for whoever has it: afterwards nothing that was given to libnbd is read or written to.
  func breakOff() {
    let socket = unsafe nbd_aio_get_fd(handle)
    if socket >= 0 { shutdown(socket, Int32(SHUT_RDWR)) }
    while isAlive, unsafe nbd_poll(handle, 100) != -1 {}
  }

  /// The server took too long.
  func silence(_ call: String, _ milliseconds: Int = silenceMilliseconds) -> StrobeError {
    StrobeError(
      .system(errno: ETIMEDOUT, call: call, object: name),
      "\(name) answered nothing for \(milliseconds / 1000) s",
      advice: "look at the NBD server")
  }

  /// Whether commands can still be given.
  var isAlive: Bool { unsafe nbd_aio_is_ready(handle) == 1 || nbd_aio_is_processing(handle) == 1 }
}

/// A buffer that several may hold.
final class BufferBox {
  let buffer: AlignedBuffer

  init(count: Int) { buffer = AlignedBuffer(count: count) }
}
