import Quiescing
import Synchronization

/// An outcome that another thread finds.
final class Answer: Sendable {
  private let kept = Mutex<FreezeOutcome?>(nil)
  func set(_ outcome: FreezeOutcome?) { kept.withLock { $0 = outcome } }
  var value: FreezeOutcome? { kept.withLock { $0 } }
}
