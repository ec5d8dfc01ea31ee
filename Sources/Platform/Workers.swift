import Glibc
import Synchronization

/// Runs `body(index)` on `count` threads of their own and waits for all. The first error is thrown
/// when every thread has ended; the others are told to stop through `stop`.
///
/// Blocking I/O never runs on Swift's cooperative pool.
package func onWorkers(
  _ count: Int, stop: CancellationFlag,
  _ body: @escaping @Sendable (_ index: Int) throws(StrobeError) -> Void
) throws(StrobeError) {
  precondition(count > 0)
  let first = FirstError()
  let run: @Sendable (Int) -> Void = { index in
    do throws(StrobeError) {
      try body(index)
    } catch {
      first.keep(error)
      stop.stopSiblings()
    }
  }
  var threads: [pthread_t] = []
  for index in 0..<count {
    // A thread that can't be had is no failure: the others do its share.
    if let thread = startThread({
      giveWay()
      run(index)
    }) {
      threads.append(thread)
    }
  }
  if threads.isEmpty { run(0) }
  for thread in threads { pthread_join(thread, nil) }
  stop.allowSiblings()
  if let error = first.error { throw error }
}

/// Lets everybody else go first where a processor is short: the guest whose disk is read, and the
/// kernel's own threads that move the data. See docs/decisions/0005-workers-give-way.md.
private func giveWay() {
  // On Linux 0 means the calling thread alone. See setpriority(2), "C library/kernel differences".
  setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
}

/// The error that came first; the cancellations that follow it are consequences.
private final class FirstError: Sendable {
  private let kept = Mutex<StrobeError?>(nil)

  func keep(_ error: StrobeError) {
    kept.withLock { kept in
      if kept == nil || kept?.reason == .cancelled && error.reason != .cancelled { kept = error }
    }
  }

  var error: StrobeError? { kept.withLock { $0 } }
}

private final class ThreadBody: Sendable {
  let body: @Sendable () -> Void
  init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// Runs `body` on a thread of its own.
///
/// - Returns: what waits for its end, or nil when there is no thread to be had.
package func inBackground(_ body: @escaping @Sendable () -> Void) -> (() -> Void)? {
  guard let thread = startThread(body) else { return nil }
  return { pthread_join(thread, nil) }
}

private func startThread(_ body: @escaping @Sendable () -> Void) -> pthread_t? {
  var thread = pthread_t()
  let context = unsafe Unmanaged.passRetained(ThreadBody(body))
  let result = unsafe pthread_create(
    &thread, nil,
    { context in
      unsafe Unmanaged<ThreadBody>.fromOpaque(context!).takeRetainedValue().body()
      return nil
    }, context.toOpaque())
  guard result == 0 else {
    unsafe context.release()
    return nil
  }
  return thread
}

/// Tells running work to stop: asked by the caller from any thread, looked at between requests.
public final class CancellationFlag: Sendable {
  private let cancelled = Atomic<Bool>(false)
  private let siblingFailed = Atomic<Bool>(false)
  private let external: (@Sendable () -> Bool)?

  /// - Parameter external: asked as well, for a flag that a signal handler sets; must be cheap.
  public init(external: (@Sendable () -> Bool)? = nil) { self.external = external }

  public func cancel() { cancelled.store(true, ordering: .relaxed) }

  public var isCancelled: Bool { cancelled.load(ordering: .relaxed) || external?() == true }

  func stopSiblings() { siblingFailed.store(true, ordering: .relaxed) }
  func allowSiblings() { siblingFailed.store(false, ordering: .relaxed) }

  /// Throws when the work should stop, because the caller asked or because another worker failed.
  package func check() throws(StrobeError) {
    if siblingFailed.load(ordering: .relaxed) || isCancelled { throw .cancelled }
  }
}
