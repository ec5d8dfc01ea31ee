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

  /// What a slot waits for: one command, or several where the server takes only so many bytes at once.
  private struct Request {
    var cookies: [UInt64]
    let count: Int
    var error: Int32 = 0
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
    try unsafe start("read", slot: slot, count: count, at: offset) { memory, count, offset in
      guard disk.readFlags != 0 else {
        return unsafe nbd_aio_pread(
          connection.handle, memory, count, offset, nbd_completion_callback(), 0)
      }
      // Only this one takes flags. What comes goes to the buffer all the same.
      var chunks = unsafe nbd_chunk_callback()
      unsafe chunks.callback = { _, _, _, _, _, _ in 0 }
      return unsafe nbd_aio_pread_structured(
        connection.handle, memory, count, offset, chunks, nbd_completion_callback(),
        disk.readFlags)
    }
  }

  func startWrite(slot: Int, count: Int, at offset: Int) throws(StrobeError) {
    try unsafe start("write", slot: slot, count: count, at: offset) { memory, count, offset in
      unsafe nbd_aio_pwrite(
        connection.handle, memory, count, offset, nbd_completion_callback(), 0)
    }
  }

  private func start(
    _ call: String, slot: Int, count: Int, at offset: Int,
    _ command: (_ memory: UnsafeMutableRawPointer, _ count: Int, _ offset: UInt64) -> Int64
  ) throws(StrobeError) {
    var request = Request(cookies: [], count: count)
    var done = 0
    while done < count {
      let part = min(count - done, disk.largestRequest)
      let cookie = unsafe command(address(ofSlot: slot) + done, part, UInt64(offset + done))
      guard cookie > 0 else { throw connection.failure(call, at: offset + done) }
      request.cookies.append(UInt64(cookie))
      // What was begun is waited for, whatever becomes of the rest.
      requests[slot] = request
      done += part
    }
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
      guard var request = requests[slot] else { continue }
      request.cookies.removeAll { cookie in
        let state = unsafe nbd_aio_command_completed(connection.handle, cookie)
        if state == -1 {
          let code = nbd_get_errno()
          request.error = code == 0 ? EIO : code
        }
        return state != 0
      }
      requests[slot] = request.cookies.isEmpty ? nil : request
      guard request.cookies.isEmpty else { continue }
      isAny = true
      ended(slot, request.error == 0 ? request.count : -Int(request.error))
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
