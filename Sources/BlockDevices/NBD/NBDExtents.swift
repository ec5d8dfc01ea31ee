import CNBD
import Glibc
package import Platform

/// What the server says of a range of a disk: how many bytes, and flags that mean what the context says.
private final class ExtentList {
  let context: String
  var runs: [(length: Int, flags: UInt32)] = []

  init(context: String) { self.context = context }
}

extension NBDDisk {
  /// Calls `body` with every extent of a metadata context, in order and without gaps.
  ///
  /// - Throws: `system` when the server can't say, `cancelled`.
  package func forEachExtent(
    of context: String, stop: CancellationFlag,
    _ body: (_ range: Range<Int>, _ flags: UInt32) -> Void
  ) throws(StrobeError) {
    try with { (connection) throws(StrobeError) in
      var position = 0
      while position < size {
        try stop.check()
        let runs = try extents(of: context, from: position, connection, stop)
        for run in runs where position < size {
          let end = min(position + run.length, size)
          body(position..<end, run.flags)
          position = end
        }
        guard !runs.isEmpty else {
          throw StrobeError(
            .system(errno: EPROTO, call: "block status", object: connection.name),
            "\(connection.name) says nothing of byte \(position) in \(context)")
        }
      }
    }
  }

  private func extents(
    of context: String, from position: Int, _ connection: NBDConnection, _ stop: CancellationFlag
  ) throws(StrobeError) -> [(length: Int, flags: UInt32)] {
    let list = ExtentList(context: context)
    // A request has 32 bits for its length; servers like whole sectors.
    let count = min(size - position, 0xFFFF_0000)
    var callback = unsafe nbd_extent_callback()
    // Until the command is over, or its connection: then libnbd lets go of it.
    unsafe callback.user_data = Unmanaged.passRetained(list).toOpaque()
    unsafe callback.free = { user in
      if let user = unsafe user { unsafe Unmanaged<ExtentList>.fromOpaque(user).release() }
    }
    unsafe callback.callback = { user, context, _, entries, count, _ in
      guard let user = unsafe user, let context = unsafe context, let entries = unsafe entries
      else { return 0 }
      let list = unsafe Unmanaged<ExtentList>.fromOpaque(user).takeUnretainedValue()
      guard unsafe String(cString: context) == list.context else { return 0 }
      for index in stride(from: 0, to: Int(count) - 1, by: 2) {
        let run = unsafe (length: Int(entries[index]), flags: entries[index + 1])
        if run.length > 0 { list.runs.append(run) }
      }
      return 0
    }
    let cookie = unsafe nbd_aio_block_status(
      connection.handle, UInt64(count), UInt64(position), callback, nbd_completion_callback(), 0)
    try connection.finish(cookie, "block status of", at: position, stop: stop)
    return list.runs
  }

  /// Calls `body` with every range that surely reads as zeros; with none where the server doesn't say.
  func forEachHole(stop: CancellationFlag, _ body: (Range<Int>) -> Void) {
    guard contexts.contains(Self.allocation) else { return }
    // A hint: what isn't told is read.
    try? forEachExtent(of: Self.allocation, stop: stop) { range, flags in
      if flags & UInt32(LIBNBD_STATE_ZERO) != 0 { body(range) }
    }
  }
}
