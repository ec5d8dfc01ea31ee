import Glibc

/// A value that several threads change, and wait for changes of.
///
/// Neither locking nor waiting allocates memory, so that it serves while file systems are frozen.
@safe final class Monitor<State>: @unchecked Sendable {
  // Sendable: `state` is touched under `mutex` only.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private var state: State

  init(_ state: State) {
    self.state = state
    unsafe mutex = .allocate(capacity: 1)
    unsafe changed = .allocate(capacity: 1)
    unsafe pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    unsafe pthread_cond_init(changed, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_cond_destroy(changed)
    unsafe pthread_mutex_destroy(mutex)
    unsafe changed.deallocate()
    unsafe mutex.deallocate()
  }

  /// Changes the state and wakes up whoever waits for a change.
  func update<Result>(_ body: (inout State) -> Result) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer {
      unsafe pthread_cond_broadcast(changed)
      unsafe pthread_mutex_unlock(mutex)
    }
    return body(&state)
  }

  /// Waits until `body` returns something, and returns that.
  ///
  /// - Parameter deadline: nanoseconds of CLOCK_MONOTONIC; nil: waits as long as it takes.
  /// - Returns: nil when the deadline passed first.
  func wait<Result>(until deadline: Int64? = nil, _ body: (inout State) -> Result?) -> Result? {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    while true {
      if let result = body(&state) { return result }
      guard let deadline else {
        unsafe pthread_cond_wait(changed, mutex)
        continue
      }
      if Clock.now() >= deadline { return nil }
      var time = timespec(
        tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
      unsafe pthread_cond_timedwait(changed, mutex, &time)
    }
  }
}

/// CLOCK_MONOTONIC in nanoseconds.
enum Clock {
  static func now() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  static func after(milliseconds: Int) -> Int64 { now() + Int64(milliseconds) * 1_000_000 }

  /// What poll(2) takes: until `deadline`, rounded up; -1 for none.
  static func pollTimeout(until deadline: Int64?) -> Int32 {
    guard let deadline else { return -1 }
    return Int32(clamping: max(0, (deadline - now() + 999_999) / 1_000_000))
  }
}
