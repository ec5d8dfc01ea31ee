import CNBD
import Glibc
import Platform

extension NBDDisk {
  /// Milliseconds for zeros, which some servers write.
  private static let zeroMilliseconds = 600_000
  /// Milliseconds for a flush: all that was written may wait for a slow disk.
  private static let flushMilliseconds = 3_600_000

  /// Writes a range, and waits for it.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    if unsafe bytes.isEmpty { return }
    let start = bytes.baseAddress!
    var done = 0
    while done < bytes.count {
      let part = min(bytes.count - done, largestRequest)
      try unsafe perform("write", at: offset + done, NBDConnection.silenceMilliseconds) {
        unsafe nbd_aio_pwrite(
          $0, start + done, part, UInt64(offset + done), nbd_completion_callback(), 0)
      }
      done += part
    }
  }

  /// Makes a range read as zeros; the server may free its space.
  func zero(_ range: Range<Int>) throws(StrobeError) {
    var offset = range.lowerBound
    while offset < range.upperBound {
      // A request has 32 bits for its length.
      let count = min(range.upperBound - offset, 1 << 30)
      try unsafe perform("write zeros", at: offset, Self.zeroMilliseconds) {
        unsafe nbd_aio_zero($0, UInt64(count), UInt64(offset), nbd_completion_callback(), 0)
      }
      offset += count
    }
  }

  /// Makes durable what was written on any connection, where the server can.
  ///
  /// Source: proto.md, NBD_FLAG_CAN_MULTI_CONN: a flush on one connection counts for all.
  func flush() throws(StrobeError) {
    guard canFlush else { return }
    try unsafe perform("flush", at: nil, Self.flushMilliseconds) {
      unsafe nbd_aio_flush($0, nbd_completion_callback(), 0)
    }
  }

  /// Gives a command and waits for it. What fails breaks the connection: else libnbd might go on to read what
  /// was to be written, which is the caller's.
  private func perform(
    _ call: String, at offset: Int?, _ milliseconds: Int, _ command: (OpaquePointer) -> Int64
  ) throws(StrobeError) {
    let connection = try take()
    do throws(StrobeError) {
      try connection.finish(
        unsafe command(connection.handle), call, at: offset, within: milliseconds, stop: stop)
    } catch {
      connection.breakOff()
      throw error
    }
    giveBack(connection)
  }
}
