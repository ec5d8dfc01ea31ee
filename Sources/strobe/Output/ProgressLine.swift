import CLinux
import CommandLineArguments
import Engine
import Glibc
import Platform
import Synchronization

/// A line on a terminal that shows percent, rate and time left, five times a second.
final class ProgressLine: Sendable {
  let progress = Progress()
  private let verb: String
  private let ended = Atomic<Bool>(false)
  private let start = monotonic()

  private init(_ verb: String) { self.verb = verb }

  /// Runs `work` with a progress line where standard error is a terminal.
  static func during<Result>(
    _ verb: String, _ values: ParsedValues, _ work: (Progress) throws -> Result
  ) throws -> Result {
    let line = ProgressLine(verb)
    guard !values[Common.quiet], clinux_terminal_columns(STDERR_FILENO) > 0 else {
      return try work(line.progress)
    }
    let join = inBackground { line.show() }
    defer {
      line.ended.store(true, ordering: .relaxed)
      join?()
      Console.write("\r\u{1B}[K")
    }
    return try work(line.progress)
  }

  private func show() {
    while !ended.load(ordering: .relaxed) {
      let columns = Int(clinux_terminal_columns(STDERR_FILENO))
      Console.write("\r" + text().prefix(max(columns - 1, 10)) + "\u{1B}[K")
      for _ in 0..<10 where !ended.load(ordering: .relaxed) { usleep(20_000) }
    }
  }

  private func text() -> String {
    let total = progress.totalBytes.load(ordering: .relaxed)
    let done = progress.doneBytes.load(ordering: .relaxed)
    let seconds = Self.monotonic() - start
    var text = verb + " "
    if total > 0 { text += "\(Int(100 * Double(done) / Double(total)))% of \(Units.size(total)), " }
    text += Units.rate(progress.transferred, seconds)
    if done > 0 && total > done && seconds > 1 {
      text += ", " + Units.duration(seconds / Double(done) * Double(total - done)) + " left"
    }
    return text
  }

  private static func monotonic() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
