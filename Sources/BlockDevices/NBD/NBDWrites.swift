import CNBD
import Glibc
import Platform

extension NBDDisk {
  /// Writes a range, and waits for it.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    if unsafe bytes.isEmpty { return }
    let start = bytes.baseAddress!
    let connection = try take()
    var done = 0
    while done < bytes.count {
      let part = min(bytes.count - done, largestRequest)
      let result = unsafe nbd_pwrite(
        connection.handle, start + done, part, UInt64(offset + done), 0)
      guard result == 0 else { throw connection.failure("write", at: offset + done) }
      done += part
    }
    giveBack(connection)
  }

  /// Makes a range read as zeros; the server may free its space.
  func zero(_ range: Range<Int>) throws(StrobeError) {
    try with { (connection) throws(StrobeError) in
      var offset = range.lowerBound
      while offset < range.upperBound {
        // A request has 32 bits for its length.
        let count = min(range.upperBound - offset, 1 << 30)
        guard unsafe nbd_zero(connection.handle, UInt64(count), UInt64(offset), 0) == 0 else {
          throw connection.failure("write zeros", at: offset)
        }
        offset += count
      }
    }
  }

  /// Makes durable what was written on any connection, where the server can.
  ///
  /// Source: proto.md, NBD_FLAG_CAN_MULTI_CONN: a flush on one connection counts for all.
  func flush() throws(StrobeError) {
    guard canFlush else { return }
    try with { (connection) throws(StrobeError) in
      guard unsafe nbd_flush(connection.handle, 0) == 0 else { throw connection.failure("flush") }
    }
  }
}
