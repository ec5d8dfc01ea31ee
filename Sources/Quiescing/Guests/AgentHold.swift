import Glibc
import Platform
import VirtualMachines

/// A guest whose file systems its guest agent freezes.
///
/// Invariants:
/// - The freeze that the agent didn't answer in time is owed a thaw all the same: it may come into effect late.
/// - The thaw is tried until the agent has answered it, also over new connections, as long as anybody may be
///   kept waiting for it: a guest that stays frozen is the worst that can happen.
final class AgentHold: Hold, @unchecked Sendable {
  // Sendable: see ``Hold``, one thread at a time uses it.
  private var agent: GuestAgent
  private let milliseconds: Int
  /// How many file systems were frozen, when the agent said so.
  private var frozenCount: Int?

  /// Less than the guardian waits for its keepers, so that the engine hears what was the matter.
  private static let askedMilliseconds = 15_000
  /// When nobody waits.
  private static let aloneMilliseconds = 60_000
  /// For how long a socket at which nobody listens is tried again: an agent may be restarted.
  private static let absenceMilliseconds = 3_000

  init(_ agent: GuestAgent, milliseconds: Int) {
    self.agent = agent
    self.milliseconds = milliseconds
  }

  func freeze(stop: CancellationFlag) -> FreezeAnswer {
    do throws(StrobeError) {
      let count = try agent.freeze(milliseconds: milliseconds, stop: stop)
      guard count > 0 else {
        _ = try? agent.thaw(milliseconds: milliseconds)
        return FreezeAnswer(
          code: ENODATA, isOwed: agent.mayBeFrozen, text: "its agent found no file system to freeze"
        )
      }
      frozenCount = count
      return FreezeAnswer(code: 0, isOwed: true)
    } catch {
      let code = error.reason == .cancelled ? ECANCELED : error.errno
      return FreezeAnswer(
        code: code == 0 ? EIO : code, isOwed: agent.mayBeFrozen, text: error.message)
    }
  }

  func thaw(isEngineAlive: Bool) -> Int32 {
    let limit = isEngineAlive ? Self.askedMilliseconds : Self.aloneMilliseconds
    let deadline = monotonicMilliseconds() + limit
    var absence: Int?
    while true {
      let left = max(1, deadline - monotonicMilliseconds())
      do throws(StrobeError) {
        let count = try agent.thaw(milliseconds: left)
        guard let frozenCount else { return 0 }
        // Somebody else was faster, or the guest's own limit.
        return count < frozenCount ? EINVAL : 0
      } catch {
        guard [ECONNRESET, EPIPE, EMSGSIZE, EPROTO].contains(error.errno), left > 1 else {
          return error.errno == 0 ? EIO : error.errno
        }
      }
      // The engine has it, too, and a line that doesn't end breaks it on this side only.
      agent.hangUp()
      usleep(100_000)
      do throws(StrobeError) {
        agent = try GuestAgent(connecting: agent.path, milliseconds: left)
        absence = nil
      } catch {
        guard error.reason == .notFound else { continue }
        let start = absence ?? monotonicMilliseconds()
        // QEMU itself listens, or what speaks for it: without it there is no guest.
        if monotonicMilliseconds() - start > Self.absenceMilliseconds { return EINVAL }
        absence = start
      }
    }
  }
}
