import CLinux
import Glibc

/// A thread with a small stack, which fits into locked memory.
enum SmallThread {
  private static let stackSize = 256 << 10
  /// For what a guest says to be read on it.
  private static let deepStackSize = 1 << 20

  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Runs `body` on a thread that nobody waits for.
  ///
  /// - Returns: whether there was a thread to be had.
  static func start(isDeep: Bool = false, _ body: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    unsafe pthread_attr_init(&attributes)
    defer { unsafe pthread_attr_destroy(&attributes) }
    unsafe pthread_attr_setstacksize(&attributes, isDeep ? deepStackSize : stackSize)
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    let context = unsafe Unmanaged.passRetained(Body(body))
    let result = unsafe pthread_create(
      &thread, &attributes,
      { context in
        unsafe Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
        return nil
      }, context.toOpaque())
    if result != 0 { unsafe context.release() }
    return result == 0
  }
}
