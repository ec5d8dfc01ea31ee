import Glibc
package import Platform

/// Reads ranges of a disk ahead, in the order in which they were asked for.
///
/// `start` as many as there is room for, take the oldest with `next`, `release` it, start another.
package struct ReadPipeline: ~Copyable {
  private struct Slot {
    var offset = 0
    var length = 0
    var result: Int?
  }

  private let source: DiskSource
  private let io: any RequestQueue
  private let stop: CancellationFlag
  private var slots: [Slot]
  private var oldest = 0
  private var inFlight = 0

  /// - Parameters:
  ///   - depth: how many reads may be in flight.
  ///   - requestSize: bytes of the largest read, a multiple of 4,096.
  package init(
    source: DiskSource, depth: Int, requestSize: Int, stop: CancellationFlag
  ) throws(StrobeError) {
    self.source = source
    self.stop = stop
    io = try source.queue(depth: depth, requestSize: requestSize)
    slots = Array(repeating: Slot(), count: depth)
  }

  package var hasRoom: Bool { inFlight < slots.count }
  package var isEmpty: Bool { inFlight == 0 }

  /// Starts reading `length` bytes at `offset`, which is a multiple of 4,096.
  package mutating func start(offset: Int, length: Int) throws(StrobeError) {
    precondition(hasRoom && length > 0 && length <= io.slotSize)
    let index = (oldest + inFlight) % slots.count
    slots[index] = Slot(offset: offset, length: length)
    inFlight += 1
    do throws(StrobeError) {
      try io.startRead(slot: index, count: length, at: offset)
    } catch {
      inFlight -= 1
      throw error
    }
  }

  /// The bytes of the oldest read, waiting for it; valid until ``release()``.
  package mutating func next() throws(StrobeError) -> UnsafeMutableRawBufferPointer {
    precondition(inFlight > 0)
    try stop.check()
    while slots[oldest].result == nil {
      var ended: [(Int, Int)] = []
      try io.wait(stop: stop) { ended.append(($0, $1)) }
      for (slot, result) in ended { slots[slot].result = result }
    }
    let slot = slots[oldest]
    let buffer = unsafe UnsafeMutableRawBufferPointer(
      start: io.address(ofSlot: oldest), count: slot.length)
    if slot.result! < slot.length {
      try unsafe source.readAgain(at: slot.offset, into: buffer, failed: slot.result!)
    }
    return unsafe buffer
  }

  /// Whether the oldest read has ended; after `next` failed: whether it may be released.
  package var hasEnded: Bool { inFlight > 0 && slots[oldest].result != nil }

  /// Gives the buffer of the oldest read back.
  package mutating func release() {
    precondition(inFlight > 0 && slots[oldest].result != nil)
    oldest = (oldest + 1) % slots.count
    inFlight -= 1
  }
}
