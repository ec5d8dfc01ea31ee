import Glibc
import Platform
import TestSupport
import Testing

/// Waits until `condition` holds; gives up after a minute, so that a broken program can't hang a test.
func waitUntil(
  _ what: String, at location: SourceLocation = #_sourceLocation, _ condition: () throws -> Bool
) throws {
  for _ in 0..<60_000 {
    if try condition() { return }
    usleep(1000)
  }
  Issue.record("never: \(what)", sourceLocation: location)
}

/// A device that this process holds with `O_EXCL`.
final class ExclusiveHolder {
  private var descriptor: Int32

  init(_ path: String) throws {
    descriptor = unsafe open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
    guard descriptor >= 0 else { throw Shell.Failure(description: "can't hold \(path): \(errno)") }
  }

  func release() {
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
  }

  deinit { release() }
}

extension Workshop {
  /// Bytes of a pass or restore after which it isn't "in the middle" any more: tests that stop one
  /// work on more than that.
  private static let middle = 32 << 20

  /// Whether a file has less in it than a finished one would.
  private func isUnfinished(_ path: String) -> Bool {
    var facts = stat()
    return unsafe stat(path, &facts) == 0 && Int(facts.st_blocks) * 512 < Self.middle
  }

  /// Whether a pass has stored chunks, has more to store, and has published nothing.
  var isPassRunning: Bool {
    let names = (try? namesInDirectory(strobe.repository + "/locks")) ?? []
    return names.filter { $0.hasPrefix("pass-") }.contains { name in
      let id = name.dropFirst(5)
      let folder = "\(strobe.repository)/segments/\(id.prefix(2))"
      return ((try? namesInDirectory(folder)) ?? []).contains {
        $0.hasPrefix(id) && isUnfinished("\(folder)/\($0)")
      }
    }
  }

  /// Whether a restore has made its file, which hasn't its name yet, and has more to write.
  func isRestoreRunning(_ process: RunningProcess) -> Bool {
    let descriptors = "/proc/\(process.id)/fd"
    return ((try? namesInDirectory(descriptors)) ?? []).contains { name in
      let path = "\(descriptors)/\(name)"
      var facts = stat()
      return unsafe stat(path, &facts) == 0
        && resolvedPath(path)?.hasSuffix(".strobe-partial") == true
        && Int(facts.st_size) > Self.middle
        && isUnfinished(path)
    }
  }

  /// Starts a snapshot, or a restore to a file in the folder, and stops it (SIGSTOP) in the middle.
  ///
  /// Whether it was caught in time is looked at after it stopped; if not, the next attempt is.
  ///
  /// - Parameter again: makes another attempt worth it, after one that came too late.
  func startAndStop(
    _ words: [String], output: String? = nil, again: () throws -> Void = {}
  ) throws -> RunningProcess {
    let isRestore = words[0] == "restore"
    for _ in 0..<50 {
      let process = try strobe.start(words, output: output)
      while !process.hasEnded && !(isRestore ? isRestoreRunning(process) : isPassRunning) {
        usleep(200)
      }
      process.signal(SIGSTOP)
      try waitUntil("stopped") { process.hasEnded || process.isStopped }
      if !process.hasEnded && (isRestore ? isRestoreRunning(process) : isPassRunning) {
        return process
      }
      process.signal(SIGCONT)
      process.wait()
      let target = words.last ?? ""
      if isRestore, let path = target.split(separator: "=").last { try removeFile(String(path)) }
      try again()
    }
    throw Shell.Failure(description: "\(words) is too fast to be caught")
  }
}
