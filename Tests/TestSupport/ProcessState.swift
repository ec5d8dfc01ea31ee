import Glibc
import Platform

extension RunningProcess {
  /// The letter of proc_pid_stat(5), or nil when it is gone.
  private var state: Character? {
    guard let text = readText("/proc/\(id)/stat"), let end = text.lastIndex(of: ")") else {
      return nil
    }
    return text[end...].dropFirst(2).first
  }

  package var hasEnded: Bool { state == nil || state == "Z" }
  package var isStopped: Bool { state == "T" }
  /// Whether it waits in the kernel and no signal helps.
  package var isBlocked: Bool { state == "D" }

  /// Waits until it listens at Unix sockets: their names are there a moment sooner, and refuse.
  /// - Throws: when it ends instead, or a minute is over.
  package func waitUntilListening(at paths: String...) throws {
    for _ in 0..<12_000 {
      if paths.allSatisfy(isListening) { return }
      if hasEnded { break }
      usleep(5000)
    }
    throw Shell.Failure(description: "nobody listens at \(paths)")
  }
}

/// Whether a program listens at a Unix socket, from `/proc/net/unix`, whose fourth column holds `__SO_ACCEPTCON`.
private func isListening(at path: String) -> Bool {
  (readText("/proc/net/unix") ?? "").split(separator: "\n").contains { line in
    line.hasSuffix(" " + path) && line.split(separator: " ").dropFirst(3).first == "00010000"
  }
}
