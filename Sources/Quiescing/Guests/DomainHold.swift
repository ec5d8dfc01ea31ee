import Glibc
import Platform
import VirtualMachines

/// A libvirt domain whose file systems its guest agent freezes, asked through libvirt.
///
/// Engine and guardian have each a connection of their own: libvirt serves many clients.
///
/// Invariant: a freeze that wasn't answered in time is owed a thaw all the same: it may come into effect late.
final class DomainHold: Hold, @unchecked Sendable {
  // Sendable: see ``Hold``, one thread at a time uses it.
  private let uri: String
  private let domain: String
  private let milliseconds: Int
  private var frozenCount: Int?
  /// What a place has to have: nothing is done with it.
  let descriptor: Int32

  private static let askedMilliseconds = 15_000
  private static let aloneMilliseconds = 60_000

  init(uri: String, domain: String, milliseconds: Int) {
    self.uri = uri
    self.domain = domain
    self.milliseconds = milliseconds
    descriptor = unsafe open("/dev/null", O_RDWR | O_CLOEXEC)
  }

  /// - Parameter place: `domain@URI`.
  init(place: String, milliseconds: Int, inheriting descriptor: Int32 = -1) {
    // By bytes: a name may end with what would make one character with the `@`.
    let at = place.utf8.firstIndex(of: UInt8(ascii: "@")) ?? place.endIndex
    domain = String(place[..<at])
    uri = at == place.endIndex ? "" : String(place[place.utf8.index(after: at)...])
    self.milliseconds = milliseconds
    self.descriptor = descriptor
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  private var seconds: Int { max(1, (milliseconds + 999) / 1000) }

  /// Finds out, before anything is done, whether libvirt and the domain are there, and its agent answers.
  func check() throws(StrobeError) {
    try LibvirtAgent(connecting: uri, domain: domain).ask(seconds: seconds)
  }

  func freeze(stop: CancellationFlag) -> FreezeAnswer {
    do throws(StrobeError) {
      let agent = try LibvirtAgent(connecting: uri, domain: domain)
      do throws(StrobeError) {
        let count = try agent.freeze(seconds: seconds)
        guard count > 0 else {
          return FreezeAnswer(
            code: ENODATA, isOwed: false, text: "its agent found no file system to freeze")
        }
        frozenCount = count
        return FreezeAnswer(code: 0, isOwed: true)
      } catch {
        _ = try? agent.thaw(seconds: seconds)
        return FreezeAnswer(
          code: error.errno == 0 ? EIO : error.errno, isOwed: true, text: error.message)
      }
    } catch {
      return FreezeAnswer(
        code: error.errno == 0 ? EIO : error.errno, isOwed: false, text: error.message)
    }
  }

  func thaw(isEngineAlive: Bool) -> Int32 {
    let limit = isEngineAlive ? Self.askedMilliseconds : Self.aloneMilliseconds
    let deadline = monotonicMilliseconds() + limit
    while true {
      do throws(StrobeError) {
        let count = try thawLeft()
        guard let frozenCount else { return 0 }
        // Somebody else was faster, or the guest's own limit.
        return count < frozenCount ? EINVAL : 0
      } catch {
        // A domain that is off has nothing frozen.
        if error.reason == .notFound { return EINVAL }
        guard monotonicMilliseconds() < deadline else {
          return error.errno == 0 ? EIO : error.errno
        }
      }
      usleep(200_000)
    }
  }

  /// - Returns: how many file systems were thawed.
  func thawLeft() throws(StrobeError) -> Int {
    try LibvirtAgent(connecting: uri, domain: domain).thaw(seconds: seconds)
  }
}
