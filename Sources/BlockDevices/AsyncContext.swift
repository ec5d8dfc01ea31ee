import CAIO
import Glibc
import Platform
import Synchronization

/// A kernel context for asynchronous I/O, used again by the next who needs one.
///
/// io_destroy(2) waits for a grace period of the kernel, 10 to 30 ms: as long as scanning 100 MB. A
/// context with nothing in flight is as good as new, so it is kept instead.
@safe struct AsyncContext: @unchecked Sendable {
  // Sendable: whoever took it is alone with it.
  /// Requests that a context takes at once; a pass needs fewer.
  static let capacity = 64

  let handle: io_context_t

  private static let idle = Mutex<[AsyncContext]>([])

  /// - Throws: EAGAIN when the system's limit of requests is reached.
  static func take() throws(StrobeError) -> AsyncContext {
    if let kept = idle.withLock({ $0.popLast() }) { return kept }
    var handle: io_context_t?
    let result = unsafe io_queue_init(Int32(capacity), &handle)
    guard result == 0, let handle = unsafe handle else {
      throw StrobeError.system(-result, call: "io_setup", object: "asynchronous I/O").explained(
        "asynchronous I/O is not to be had: \(unsafe String(cString: strerror(-result)))",
        advice: "raise fs.aio-max-nr with sysctl")
    }
    return unsafe AsyncContext(handle: handle)
  }

  /// Gives a context back.
  /// - Parameter inFlight: how many of its requests have not been collected; they are waited for.
  func giveBack(inFlight: Int) {
    var left = inFlight
    var event = unsafe io_event()
    while left > 0 {
      let count = unsafe io_getevents(handle, 1, 1, &event, nil)
      if count == -EINTR { continue }
      guard count == 1 else {
        unsafe io_queue_release(handle)
        return
      }
      left -= 1
    }
    Self.idle.withLock { $0.append(self) }
  }
}
