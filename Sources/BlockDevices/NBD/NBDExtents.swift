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
        let runs = try extents(of: context, from: position, to: size, connection, stop)
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
    of context: String, from position: Int, to limit: Int, _ connection: NBDConnection,
    _ stop: CancellationFlag
  ) throws(StrobeError) -> [(length: Int, flags: UInt32)] {
    let list = ExtentList(context: context)
    // A request has 32 bits for its length; servers like whole sectors.
    let count = min(limit - position, 0xFFFF_0000)
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
  ///
  /// It may show the past of a disk that is written to: an image that gets what is overwritten, over the disk. QEMU asks the
  /// image first and then the disk. What the guest discards between the two counts as zeros, although the image has its
  /// content by then; asked again, it says so. So a hole is one when it is said twice.
  func forEachHole(stop: CancellationFlag, _ body: (Range<Int>) -> Void) {
    guard contexts.contains(Self.allocation) else { return }
    // A hint: what isn't told is read.
    if isStill {
      try? forEachExtent(of: Self.allocation, stop: stop) { range, flags in
        if Self.isHole(flags) { body(range) }
      }
    } else {
      try? forEachConfirmedHole(stop, body)
    }
  }

  private static func isHole(_ flags: UInt32) -> Bool { flags & UInt32(LIBNBD_STATE_ZERO) != 0 }

  private func forEachConfirmedHole(
    _ stop: CancellationFlag, _ body: (Range<Int>) -> Void
  ) throws(StrobeError) {
    try with { (connection) throws(StrobeError) in
      var position = 0
      // One answer at a time: a disk may have millions of holes.
      while position < size {
        try stop.check()
        let said = try holes(from: position, to: size, connection, stop)
        guard said.end > position else { return }
        if let first = said.holes.first, let last = said.holes.last {
          var again = first.lowerBound
          var index = 0
          while again < last.upperBound {
            try stop.check()
            let answer = try holes(from: again, to: last.upperBound, connection, stop)
            guard answer.end > again else { return }
            again = answer.end
            for hole in answer.holes {
              while index < said.holes.count, said.holes[index].lowerBound < hole.upperBound {
                let both = said.holes[index].clamped(to: hole)
                if !both.isEmpty { body(both) }
                // What goes beyond this one may be in the next.
                if said.holes[index].upperBound > hole.upperBound { break }
                index += 1
              }
            }
          }
        }
        position = said.end
      }
    }
  }

  /// The holes that one answer names, ascending, and where it ends.
  private func holes(
    from position: Int, to limit: Int, _ connection: NBDConnection, _ stop: CancellationFlag
  ) throws(StrobeError) -> (holes: [Range<Int>], end: Int) {
    var end = position
    var holes: [Range<Int>] = []
    for run in try extents(of: Self.allocation, from: position, to: limit, connection, stop)
    where end < limit {
      let next = min(end + run.length, limit)
      if Self.isHole(run.flags) { holes.append(end..<next) }
      end = next
    }
    return (holes, end)
  }
}
