import CAIO
import CLinux
import Glibc
package import Platform

/// A libaio context with one aligned buffer a slot: several reads or writes in flight at once.
///
/// The context owns the buffers, so that the kernel is done with them before they are freed.
/// Source: io_setup(2), io_submit(2), io_getevents(2).
@safe package struct AsyncIO: ~Copyable {
  package let slotCount: Int
  /// Bytes of each slot's buffer.
  package let slotSize: Int

  private let memory: UnsafeMutableRawPointer
  private let requests: UnsafeMutablePointer<iocb>
  private let events: UnsafeMutablePointer<io_event>
  private let context: AsyncContext
  private var inFlight = 0

  package init(slotCount: Int, slotSize: Int) throws(StrobeError) {
    precondition(
      slotCount > 0 && slotCount <= AsyncContext.capacity && slotSize > 0 && slotSize % 4096 == 0)
    context = try AsyncContext.take()
    self.slotCount = slotCount
    self.slotSize = slotSize
    unsafe memory = Self.allocate(slotCount * slotSize)
    unsafe requests = .allocate(capacity: slotCount)
    unsafe requests.initialize(repeating: iocb(), count: slotCount)
    unsafe events = .allocate(capacity: slotCount)
    unsafe events.initialize(repeating: io_event(), count: slotCount)
  }

  deinit {
    // Waits for what is in flight: until then the kernel writes to the buffers.
    context.giveBack(inFlight: inFlight)
    unsafe memory.deallocate()
    unsafe requests.deallocate()
    unsafe events.deallocate()
  }

  /// Huge pages where they fit: pinning 4 KiB pages one by one takes an eighth of a scan's time.
  private static func allocate(_ count: Int) -> UnsafeMutableRawPointer {
    let hugePage = 2 << 20
    guard count >= hugePage else { return .allocate(byteCount: count, alignment: 4096) }
    let whole = (count + hugePage - 1) & ~(hugePage - 1)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: whole, alignment: hugePage)
    unsafe madvise(memory, whole, Int32(MADV_HUGEPAGE))
    return unsafe memory
  }

  package func address(ofSlot slot: Int) -> UnsafeMutableRawPointer {
    unsafe memory + slot * slotSize
  }

  /// Starts reading `count` bytes at `offset` into the slot's buffer.
  package mutating func startRead(
    slot: Int, _ descriptor: Int32, count: Int, at offset: Int
  ) throws(StrobeError) {
    unsafe io_prep_pread(requests + slot, descriptor, address(ofSlot: slot), count, Int64(offset))
    try submit(slot)
  }

  /// Starts writing the first `count` bytes of the slot's buffer at `offset`.
  package mutating func startWrite(
    slot: Int, _ descriptor: Int32, count: Int, at offset: Int
  ) throws(StrobeError) {
    unsafe io_prep_pwrite(requests + slot, descriptor, address(ofSlot: slot), count, Int64(offset))
    try submit(slot)
  }

  private mutating func submit(_ slot: Int) throws(StrobeError) {
    var request: UnsafeMutablePointer<iocb>? = unsafe requests + slot
    while true {
      let result = unsafe io_submit(context.handle, 1, &request)
      if result == 1 {
        inFlight += 1
        return
      }
      // EAGAIN: the queue of the device is full for the moment.
      if result == -EINTR || result == -EAGAIN || result == 0 {
        usleep(100)
        continue
      }
      throw .system(-result, call: "io_submit", object: "asynchronous I/O")
    }
  }

  /// Waits until at least one request ended, then calls `ended(slot, result)` for each that did:
  /// `result` is a count of bytes, or `-errno`.
  ///
  /// - Throws: ``StrobeError/Reason/cancelled`` soon after `stop` is set, whatever the device does.
  package mutating func wait(
    stop: CancellationFlag, _ ended: (_ slot: Int, _ result: Int) -> Void
  ) throws(StrobeError) {
    while true {
      var patience = timespec(tv_sec: 0, tv_nsec: 100_000_000)
      let count = unsafe io_getevents(context.handle, 1, slotCount, events, &patience)
      if count == 0 || count == -EINTR {
        try stop.check()
        continue
      }
      guard count > 0 else {
        throw .system(-count, call: "io_getevents", object: "asynchronous I/O")
      }
      inFlight -= Int(count)
      for index in 0..<Int(count) {
        let slot = unsafe events[index].obj - requests
        ended(slot, unsafe Int(bitPattern: events[index].res))
      }
      return
    }
  }
}
