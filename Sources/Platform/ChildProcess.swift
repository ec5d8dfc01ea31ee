import CLinux
import Glibc

/// A program started without a shell, in a process group or session of its own.
package final class ChildProcess {
  package let id: Int32
  /// Tells this very process from another one that got its number later.
  private let handle: Int32
  private var hasEnded = false

  /// - Parameters:
  ///   - descriptors: what its descriptors 0, 1, 2, … are to be; every other one is closed.
  ///   - environment: `NAME=value`.
  package init(
    _ program: String, arguments: [String], environment: [String], descriptors: [Int32],
    newSession: Bool = false
  ) throws(StrobeError) {
    // Out of the way of the numbers that they become.
    var high: [Int32] = []
    defer { for descriptor in high { close(descriptor) } }
    for descriptor in descriptors {
      high.append(
        try systemCall("fcntl", program) {
          fcntl(descriptor, F_DUPFD_CLOEXEC, Int32(descriptors.count))
        })
    }
    var words = unsafe ([program] + arguments).map { unsafe strdup($0) } + [nil]
    var variables = unsafe environment.map { unsafe strdup($0) } + [nil]
    defer {
      for index in unsafe words.indices { unsafe free(words[index]) }
      for index in unsafe variables.indices { unsafe free(variables[index]) }
    }
    var id: pid_t = 0
    let code = unsafe clinux_spawn(
      &id, program, &words, &variables, high, Int32(high.count), newSession ? 1 : 0)
    guard code == 0 else { throw .system(code, call: "start", object: program) }
    self.id = id
    handle = clinux_process_descriptor(id)
  }

  deinit {
    if handle >= 0 { close(handle) }
  }

  /// Signals the process alone.
  package func signal(_ number: Int32) {
    if hasEnded { return }
    if handle < 0 || clinux_process_signal(handle, number) != 0 && errno == ENOSYS {
      kill(id, number)
    }
  }

  /// Signals everybody in its process group. Only before it was waited for: until then the group can't
  /// be another's.
  package func signalGroup(_ number: Int32) {
    if !hasEnded { kill(-id, number) }
  }

  /// Whether it has ended; it is still a zombie then, so that its number and group stay its own.
  package var isOver: Bool {
    var information = unsafe siginfo_t()
    let flags = WEXITED | WNOHANG | WNOWAIT
    let result = unsafe waitid(P_PID, id_t(id), &information, flags)
    return unsafe result != 0 || information.si_signo != 0
  }

  /// Frees the number of a process that is over.
  ///
  /// - Returns: as waitpid(2) gives it; nil when somebody else has waited for it.
  package func collect() -> Int32? {
    if hasEnded { return nil }
    hasEnded = true
    var status: Int32 = 0
    while true {
      if unsafe waitpid(id, &status, 0) == id { return status }
      if errno != EINTR { return nil }
    }
  }
}
