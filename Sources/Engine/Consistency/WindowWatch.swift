import Quiescing
import Synchronization

/// Tells the workers of a cut that the freeze was lost, so that they stop: what they read is of no use.
final class WindowWatch: Sendable {
  private let session = Mutex<FreezeSession?>(nil)

  var isLost: Bool { session.withLock { $0?.isLost == true } }

  func begin(_ new: FreezeSession) { session.withLock { $0 = new } }
  func end() { session.withLock { $0 = nil } }
}
