import CLinux
import Glibc
import Platform

/// What a hook writes: the first 64 KiB are kept, the rest is read and dropped, so that a flood neither
/// stops the hook nor fills memory.
final class HookOutput {
  private let readEnd: Int32
  private(set) var writeEnd: Int32
  private(set) var bytes: [UInt8] = []
  private var hasEnded = false

  init() throws(StrobeError) {
    var ends: [Int32] = [-1, -1]
    // Both ends close when another program is started meanwhile; only the hook gets one.
    try systemCall("pipe", "hook output") { unsafe clinux_pipe(&ends) }
    (readEnd, writeEnd) = (ends[0], ends[1])
    // Only the read end, which is another description than the hook's.
    _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
  }

  deinit {
    closeWriteEnd()
    close(readEnd)
  }

  func closeWriteEnd() {
    if writeEnd >= 0 { close(writeEnd) }
    writeEnd = -1
  }

  /// Reads what there is, waiting for it at most so long; not longer than a mebibyte's worth, so that who
  /// floods can't keep the caller from looking at the clock.
  func read(milliseconds: Int32) {
    if hasEnded {
      if milliseconds > 0 { usleep(UInt32(milliseconds) * 1000) }
      return
    }
    var request = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
    _ = unsafe poll(&request, 1, milliseconds)
    for _ in 0..<16 {
      let count = unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 64 << 10) {
        buffer in
        let count = unsafe Glibc.read(readEnd, buffer.baseAddress, buffer.count)
        let room = HookRunner.outputLimit - bytes.count
        if count > 0 && room > 0 {
          unsafe bytes.append(contentsOf: buffer.prefix(min(count, room)))
        }
        return count
      }
      if count == 0 { hasEnded = true }
      if count <= 0 { return }
    }
  }
}
