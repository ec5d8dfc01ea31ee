import CLinux
import Glibc
import Platform

/// The guardian: a process that makes sure that file systems and guests don't stay frozen.
///
/// It freezes them itself, so that it alone knows which freezes are its own, and thaws when told to, when
/// the deadline passes, and when the socket closes because the engine died, however that happened.
///
/// Invariants:
/// - G1 From the first `begin` until everything is thawed, the main thread waits nowhere but in poll(2),
///   with the deadline as its limit. What freezes and thaws is called by other threads
///   (``Keeper``), and messages are sent without waiting.
/// - G2 The process ends only when nothing is frozen by it: ``finish()`` waits for every call that hangs. A guest that
///   has not answered for a minute after the engine's death is left to `strobe thaw`: its record stays.
/// - G3 The engine may be unable to die, in a write to a frozen file system; then the socket doesn't
///   close. The deadline needs nobody's death.
/// - G4 Memory is locked before READY, and while a file system of this host is frozen nothing is allocated, opened,
///   written or logged. Whoever speaks to a guest allocates; therefore a session freezes either file systems or
///   guests (``FreezeSession`` refuses both), and a guest's storage is never what the guardian runs from.
/// - G5 A record is removed only when its file system or guest is thawed, while its lock is held, and only if
///   the path still leads to the very file that is locked.
package enum GuardianProcess {
  /// The first argument with which the program becomes a guardian; in no help text.
  package static let argument = "guardian-process"

  /// Runs the guardian in this process, which was started for that.
  ///
  /// - Returns: the exit status.
  package static func run() -> Int32 {
    clinux_ignore_signals()
    guard let configuration = receiveConfiguration() else {
      let text = "strobe: \(argument) is started by strobe itself, with a socket\n"
      _ = unsafe text.withCString { unsafe write(STDERR_FILENO, $0, strlen($0)) }
      return 2
    }
    closeOnExecution(GuardianConfiguration.descriptorCount(places: configuration.places.count))
    let guardian = Guardian(configuration)
    guard guardian.startKeepers() else { return 1 }
    let oom = setOOMScore("-1000")
    let memory = systemCallCode { clinux_lock_memory() }
    GuardianMessage(.ready, index: Int(oom), code: memory).send(to: GuardianConfiguration.socket)
    guardian.serve()
    return 0
  }

  private static func receiveConfiguration() -> GuardianConfiguration? {
    var bytes = [UInt8](repeating: 0, count: GuardianConfiguration.maximumSize)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe recv(GuardianConfiguration.socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
    }
    guard count > 0 else { return nil }
    return GuardianConfiguration(decoding: Array(bytes.prefix(count)))
  }

  /// A hook that the guardian runs must hold neither the lock nor the mount.
  private static func closeOnExecution(_ count: Int) {
    for descriptor in GuardianConfiguration.socket..<Int32(count) {
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
  }

  /// See proc(5), oom_score_adj.
  @discardableResult
  static func setOOMScore(_ score: String) -> Int32 {
    let file = unsafe open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
    guard file >= 0 else { return errno }
    defer { close(file) }
    return unsafe write(file, score, score.utf8.count) == score.utf8.count ? 0 : errno
  }
}
