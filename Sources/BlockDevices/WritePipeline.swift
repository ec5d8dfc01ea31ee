import Glibc
package import Platform

/// Writes to a target with several requests in flight: fill the buffer, `write` it, take the next.
package struct WritePipeline: ~Copyable {
  private struct Request {
    var offset: Int
    var count: Int
  }

  private let target: DiskTarget
  private let io: any RequestQueue
  private let stop: CancellationFlag
  private var busy: [Request?]
  private var current: Int

  /// - Parameter requestSize: bytes of the largest write, a multiple of 4,096.
  package init(
    target: DiskTarget, depth: Int, requestSize: Int, stop: CancellationFlag
  ) throws(StrobeError) {
    self.target = target
    self.stop = stop
    io = try target.queue(depth: depth, requestSize: requestSize)
    busy = Array(repeating: nil, count: depth)
    current = 0
  }

  /// The buffer to fill next.
  package var buffer: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: io.address(ofSlot: current), count: io.slotSize)
  }

  /// Writes the first `count` bytes of ``buffer`` at `offset`, a multiple of 4,096, and finds another
  /// buffer, waiting for one if it must.
  package mutating func write(count: Int, at offset: Int) throws(StrobeError) {
    let whole = target.isLocal ? count & ~4095 : count
    if whole < count {
      let end = unsafe UnsafeRawBufferPointer(
        rebasing: UnsafeRawBufferPointer(buffer)[whole..<count])
      try unsafe target.writeBuffered(end, at: offset + whole)
    }
    guard whole > 0 else { return }
    busy[current] = Request(offset: offset, count: whole)
    do throws(StrobeError) {
      try io.startWrite(slot: current, count: whole, at: offset)
    } catch {
      busy[current] = nil
      throw target.said(error)
    }
    while true {
      if let free = busy.firstIndex(where: { $0 == nil }) {
        current = free
        return
      }
      try collect()
    }
  }

  /// Waits until nothing is in flight.
  package mutating func drain() throws(StrobeError) {
    while busy.contains(where: { $0 != nil }) { try collect() }
  }

  private mutating func collect() throws(StrobeError) {
    var ended: [(Int, Int)] = []
    try io.wait(stop: stop) { ended.append(($0, $1)) }
    for (slot, result) in ended {
      let request = busy[slot]!
      busy[slot] = nil
      if result == request.count { continue }
      if result < 0 && result != -Int(EAGAIN) && result != -Int(EINTR) {
        throw target.said(
          .system(Int32(-result), call: "write", object: "\(target.path) at byte \(request.offset)")
        )
      }
      // A short write: the rest the slow way, which names the reason when there is one.
      let done = max(result, 0)
      let rest = unsafe UnsafeRawBufferPointer(
        start: io.address(ofSlot: slot) + done, count: request.count - done)
      try unsafe target.writeBuffered(rest, at: request.offset + done)
    }
  }
}
