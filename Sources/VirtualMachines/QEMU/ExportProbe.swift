import Glibc
import Platform

/// Reads the first bytes of an NBD export, to find out whether it still can be read.
///
/// Source: doc/proto.md of NetworkBlockDevice/nbd.
enum ExportProbe {
  /// Bytes that are read.
  static let size = 512
  private static let limitMilliseconds = 10_000

  /// - Returns: what the server says: 0, or an errno.
  static func read(_ export: String, at socket: String) throws(StrobeError) -> UInt32 {
    let line = try LineSocket(connecting: socket, milliseconds: limitMilliseconds)
    let wire = ProbeWire(number: line.number, path: socket, limit: limitMilliseconds)
    // "NBDMAGIC", "IHAVEOPT", what the server can.
    let greeting = try wire.receive(18)
    guard greeting.prefix(16).elementsEqual("NBDMAGICIHAVEOPT".utf8) else {
      throw .damaged(socket, expected: "the greeting of an NBD server", found: "something else")
    }
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(3))  // fixed, no zeroes
    bytes += Array("IHAVEOPT".utf8)
    bytes.append(bigEndian: UInt32(1))  // NBD_OPT_EXPORT_NAME
    bytes.append(bigEndian: UInt32(export.utf8.count))
    bytes += Array(export.utf8)
    try line.send(bytes, milliseconds: limitMilliseconds)
    _ = try wire.receive(10)  // size, flags
    try line.send(request(0, count: size), milliseconds: limitMilliseconds)  // NBD_CMD_READ
    let reply = try wire.receive(16)
    let code = reply[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    if code == 0 { _ = try wire.receive(size) }
    try line.send(request(2, count: 0), milliseconds: limitMilliseconds)  // NBD_CMD_DISC
    return code
  }

  private static func request(_ kind: UInt16, count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(0x2560_9513))
    bytes.append(bigEndian: UInt16(0))
    bytes.append(bigEndian: kind)
    bytes.append(bigEndian: UInt64(1))  // cookie
    bytes.append(bigEndian: UInt64(0))  // offset
    bytes.append(bigEndian: UInt32(count))
    return bytes
  }
}

/// Bytes from a socket, with a limit.
private struct ProbeWire {
  let number: Int32
  let path: String
  let limit: Int

  func receive(_ count: Int) throws(StrobeError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    let deadline = monotonicMilliseconds() + limit
    while done < count {
      var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
      let left = max(0, deadline - monotonicMilliseconds())
      if try systemCall("poll", path, { unsafe poll(&request, 1, Int32(left)) }) == 0 {
        throw .system(ETIMEDOUT, call: "read", object: path)
      }
      let got = try systemCall("read", path) {
        unsafe bytes.withUnsafeMutableBytes {
          unsafe recv(number, $0.baseAddress! + done, count - done, 0)
        }
      }
      guard got > 0 else { throw .system(ECONNRESET, call: "read", object: path) }
      done += got
    }
    return bytes
  }
}
