public import Synchronization

/// How far a pass is: counters that its workers raise and anybody may read at any time.
public final class Progress: Sendable {
  /// Bytes of disks to be looked at; 0 until known.
  public let totalBytes = Atomic<Int>(0)
  /// Bytes of disks that are done, read or skipped.
  public let doneBytes = Atomic<Int>(0)
  /// Bytes read from a device or written to it.
  public let transferredBytes = Atomic<Int>(0)
  /// Bytes added to the repository or read from it.
  public let storedBytes = Atomic<Int>(0)

  public init() {}

  /// Bytes read from a device or written to it, or checked.
  public var transferred: Int { transferredBytes.load(ordering: .relaxed) }

  /// Sets the total, in bytes, before the work begins.
  package func expect(_ bytes: Int) { totalBytes.store(bytes, ordering: .relaxed) }

  /// Raises the total, in bytes: more turned out to be to do.
  package func expectMore(_ bytes: Int) { totalBytes.wrappingAdd(bytes, ordering: .relaxed) }

  package func add(done: Int = 0, transferred: Int = 0, stored: Int = 0) {
    doneBytes.wrappingAdd(done, ordering: .relaxed)
    transferredBytes.wrappingAdd(transferred, ordering: .relaxed)
    storedBytes.wrappingAdd(stored, ordering: .relaxed)
  }
}
