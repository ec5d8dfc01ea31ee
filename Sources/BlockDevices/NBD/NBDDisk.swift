import CNBD
import Glibc
package import Platform
import Synchronization

/// A disk that an NBD server exports.
///
/// Each worker takes a connection of its own where the server allows several at once (what one has flushed
/// the others see); otherwise all share the one that there is.
package final class NBDDisk: Sendable {
  package let uri: String
  /// Bytes.
  package let size: Int
  let isReadOnly: Bool
  let canZero: Bool
  let canFlush: Bool
  /// Bytes that the server takes in one read or write.
  let largestRequest: Int
  /// Whether several connections see one disk.
  package let isShared: Bool
  /// Whether nobody writes to it, nor to what it lies over: QEMU's view of the past of a disk that is written to takes care
  /// (`forEachHole`, `readFlags`).
  let isStill: Bool
  /// Of reads. QEMU looks for zeros before it reads, and what the guest discards then counts as zeros, although the filter
  /// has kept its content by then; with this flag it reads only.
  let readFlags: UInt32
  /// Of the metadata contexts that were asked for, those that the server has.
  package let contexts: [String]
  private let wanted: [String]
  /// Ends the wait for what is written.
  let stop: CancellationFlag
  private let idle: Mutex<[NBDConnection]>

  /// 16 PiB: more than anybody has, and nothing that is computed with it overflows.
  static let largestSize = 16 << 50

  static let allocation = "base:allocation"

  /// - Parameters:
  ///   - contexts: metadata contexts beside `base:allocation`.
  ///   - isStill: nobody writes to it, nor to what it lies over.
  ///   - stop: ends the wait for a connection, and for what is written. Reads have one of their own.
  package init(
    _ uri: String, contexts: [String] = [], isStill: Bool = false,
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) {
    self.uri = uri
    self.stop = stop
    wanted = [Self.allocation] + contexts
    let first = try NBDConnection(uri, contexts: wanted, stop: stop)
    let handle = unsafe first.handle
    let bytes = unsafe nbd_get_size(handle)
    guard bytes >= 0 else { throw first.failure("size of") }
    guard bytes <= Self.largestSize else {
      throw StrobeError(
        .usage, "\(first.name) says that it has \(bytes) bytes, more than any disk",
        advice: "look at the NBD server")
    }
    size = Int(bytes)
    isReadOnly = unsafe nbd_is_read_only(handle) != 0
    canZero = unsafe nbd_can_zero(handle) == 1
    canFlush = unsafe nbd_can_flush(handle) == 1
    // Source: proto.md, "Block size constraints". Nothing said: 32 MiB.
    let largest = unsafe Int(nbd_get_block_size(handle, Int32(LIBNBD_SIZE_MAXIMUM)))
    largestRequest = largest >= 4096 ? largest & ~4095 : 32 << 20
    isShared = unsafe nbd_can_multi_conn(handle) == 1
    self.isStill = isStill
    let canReadWhole = unsafe nbd_can_df(handle) == 1
    readFlags = canReadWhole && !isStill ? UInt32(LIBNBD_CMD_FLAG_DF) : 0
    self.contexts = wanted.filter { unsafe nbd_can_meta_context(handle, $0) == 1 }
    idle = Mutex([])
    giveBack(first)
  }

  /// Whether a text is the URI of an NBD export, as libnbd takes it.
  package static func isURI(_ text: String) -> Bool {
    ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://"].contains {
      text.lowercased().hasPrefix($0)
    }
  }

  /// A URI without a password.
  package static func displayed(_ uri: String) -> String {
    guard let start = uri.firstRange(of: "://")?.upperBound else { return uri }
    let end = uri[start...].firstIndex { $0 == "/" || $0 == "?" } ?? uri.endIndex
    guard let at = uri[start..<end].lastIndex(of: "@"),
      let colon = uri[start..<at].firstIndex(of: ":")
    else { return uri }
    return String(uri[..<colon] + uri[at...])
  }

  /// What two URIs of one export have in common, however they are written.
  package static func key(_ uri: String) -> String {
    guard let start = uri.firstRange(of: "://") else { return uri }
    let isLocal = uri[..<start.lowerBound].lowercased().hasSuffix("unix")
    let rest = uri[start.upperBound...]
    let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
    var host = rest[..<end].lowercased()
    if let at = host.lastIndex(of: "@") { host = String(host[host.index(after: at)...]) }
    if host.hasSuffix(":10809") { host = String(host.dropLast(6)) }
    let tail = rest[end...]
    let question = tail.firstIndex(of: "?") ?? tail.endIndex
    let export = tail[..<question].drop { $0 == "/" }
    let socket = isLocal ? String(tail[question...]) : ""
    return "\(isLocal ? "unix" : "tcp"):\(host)/\(export)\(socket)"
  }

  /// A connection for the caller alone, or the one that all share.
  func take() throws(StrobeError) -> NBDConnection {
    let found = idle.withLock { idle in isShared ? idle.popLast() : idle.last }
    if let found, found.isAlive { return found }
    let made = try NBDConnection(uri, contexts: wanted, stop: stop)
    guard unsafe nbd_get_size(made.handle) == Int64(size) else {
      throw StrobeError(
        .busy, "\(made.name) changed its size from \(size) bytes", advice: "run the command again")
    }
    return made
  }

  func giveBack(_ connection: NBDConnection) {
    idle.withLock { idle in
      if isShared || idle.last !== connection {
        idle = isShared ? idle + [connection] : [connection]
      }
    }
  }

  /// Runs `body` with a connection.
  func with<Result>(
    _ body: (NBDConnection) throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    let connection = try take()
    let result = try body(connection)
    giveBack(connection)
    return result
  }
}
