import Platform

/// Several reads or writes of one disk in flight at once, one aligned buffer a slot.
///
/// One thread uses a queue. Buffers belong to it, so that nobody writes to them any more when they are freed.
protocol RequestQueue: AnyObject {
  var slotCount: Int { get }
  /// Bytes of each slot's buffer.
  var slotSize: Int { get }
  func address(ofSlot slot: Int) -> UnsafeMutableRawPointer
  /// Starts reading `count` bytes at `offset` into the slot's buffer.
  func startRead(slot: Int, count: Int, at offset: Int) throws(StrobeError)
  /// Starts writing the first `count` bytes of the slot's buffer at `offset`.
  func startWrite(slot: Int, count: Int, at offset: Int) throws(StrobeError)
  /// Waits until at least one request ended, then calls `ended(slot, result)` for each that did:
  /// `result` is a count of bytes, or `-errno`.
  ///
  /// - Throws: ``StrobeError/Reason/cancelled`` soon after `stop` is set, whatever the disk does.
  func wait(
    stop: CancellationFlag, _ ended: (_ slot: Int, _ result: Int) -> Void
  ) throws(StrobeError)
}

/// The queue of a device or file of this machine: libaio.
final class LocalQueue: RequestQueue {
  private let descriptor: Int32
  private var io: AsyncIO

  init(_ descriptor: Int32, slotCount: Int, slotSize: Int) throws(StrobeError) {
    self.descriptor = descriptor
    io = try AsyncIO(slotCount: slotCount, slotSize: slotSize)
  }

  var slotCount: Int { io.slotCount }
  var slotSize: Int { io.slotSize }

  func address(ofSlot slot: Int) -> UnsafeMutableRawPointer { unsafe io.address(ofSlot: slot) }

  func startRead(slot: Int, count: Int, at offset: Int) throws(StrobeError) {
    // Direct reads of a file's unaligned end ask for the whole last page and come back short.
    try io.startRead(slot: slot, descriptor, count: (count + 4095) & ~4095, at: offset)
  }

  func startWrite(slot: Int, count: Int, at offset: Int) throws(StrobeError) {
    try io.startWrite(slot: slot, descriptor, count: count, at: offset)
  }

  func wait(
    stop: CancellationFlag, _ ended: (_ slot: Int, _ result: Int) -> Void
  ) throws(StrobeError) {
    try io.wait(stop: stop, ended)
  }
}
