import CNBD
import Glibc
import Platform

/// The queue of a disk behind NBD: as many requests in flight as there are slots, on one connection.
final class NBDQueue: RequestQueue {
  let slotCount: Int
  let slotSize: Int
  private let disk: NBDDisk
  private let connection: NBDConnection
  private let memory: BufferBox
  private var requests: [Request?]

  private struct Request {
    let cookie: UInt64
    let count: Int
  }

  init(_ disk: NBDDisk, slotCount: Int, slotSize: Int) throws(StrobeError) {
    self.disk = disk
    self.slotCount = slotCount
    self.slotSize = slotSize
    memory = BufferBox(count: slotCount * slotSize)
    requests = Array(repeating: nil, count: slotCount)
    connection = try disk.take()
  }

  deinit {
    // libnbd may still write to a buffer for as long as the connection knows of the request.
    if drain() { disk.giveBack(connection) } else { connection.keep(memory) }
  }

  func address(ofSlot slot: Int) -> UnsafeMutableRawPointer {
    unsafe memory.buffer.address + slot * slotSize
  }

  func startRead(slot: Int, count: Int, at offset: Int) throws(StrobeError) {
    let cookie = unsafe nbd_aio_pread(
      connection.handle, address(ofSlot: slot), count, UInt64(offset), nbd_completion_callback(), 0)
    try note(cookie, slot, count, "read", offset)
  }

  func startWrite(slot: Int, count: Int, at offset: Int) throws(StrobeError) {
    let cookie = unsafe nbd_aio_pwrite(
      connection.handle, address(ofSlot: slot), count, UInt64(offset), nbd_completion_callback(), 0)
    try note(cookie, slot, count, "write", offset)
  }

  private func note(
    _ cookie: Int64, _ slot: Int, _ count: Int, _ call: String, _ offset: Int
  ) throws(StrobeError) {
    guard cookie > 0 else { throw connection.failure(call, at: offset) }
    requests[slot] = Request(cookie: UInt64(cookie), count: count)
  }

  func wait(
    stop: CancellationFlag, _ ended: (_ slot: Int, _ result: Int) -> Void
  ) throws(StrobeError) {
    let limit = monotonicMilliseconds() + NBDConnection.silenceMilliseconds
    while true {
      if collect(ended) { return }
      try stop.check()
      guard unsafe nbd_poll(connection.handle, 100) != -1 else {
        // Requests that were answered before the connection broke count.
        if collect(ended) { return }
        throw connection.failure("wait for")
      }
      guard monotonicMilliseconds() < limit else {
        throw connection.silence("wait for")
      }
    }
  }

  /// - Returns: whether a request has ended.
  private func collect(_ ended: (_ slot: Int, _ result: Int) -> Void) -> Bool {
    var isAny = false
    for slot in requests.indices {
      guard let request = requests[slot] else { continue }
      let state = unsafe nbd_aio_command_completed(connection.handle, request.cookie)
      if state == 0 { continue }
      requests[slot] = nil
      isAny = true
      let code = nbd_get_errno()
      ended(slot, state == 1 ? request.count : -Int(code == 0 ? EIO : code))
    }
    return isAny
  }

  /// Waits for what is in flight, for a while.
  private func drain() -> Bool {
    let limit = monotonicMilliseconds() + 5000
    while requests.contains(where: { $0 != nil }) {
      if collect({ _, _ in }) { continue }
      if unsafe nbd_poll(connection.handle, 100) == -1 || monotonicMilliseconds() > limit {
        return false
      }
    }
    return connection.isAlive
  }
}
