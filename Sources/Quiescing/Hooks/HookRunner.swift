import Glibc
package import Platform

/// How a hook ended.
package struct HookResult: Sendable {
  package enum Ending: Sendable, Equatable {
    case exited(Int32)
    case killed(signal: Int32)
    /// Its time was up; its process group was killed.
    case timedOut
    /// The caller asked to stop; its process group was killed.
    case stopped
  }

  /// Of the last attempt.
  package let ending: Ending
  package let attempts: Int
  package let milliseconds: Double
  /// What the last attempt wrote to standard output and standard error, at most 64 KiB.
  package let output: String

  package var isSuccess: Bool { ending == .exited(0) }
}

/// Runs hooks: directly, without a shell, as root.
///
/// A program that runs into its limit is killed with its process group. What a successful hook leaves behind stays,
/// even if it holds the hook's standard output: nobody waits for that to be closed.
package struct HookRunner {
  private let hook: HookCommand
  private let onProcess: (Int32) -> Void

  static let outputLimit = 64 << 10
  /// What a program has between SIGTERM and SIGKILL.
  private static let graceMilliseconds = 2_000

  /// - Parameter onProcess: told the process group that runs, and 0 when it is over.
  package init(_ hook: HookCommand, onProcess: @escaping (Int32) -> Void = { _ in }) {
    self.hook = hook
    self.onProcess = onProcess
  }

  /// Runs it until it succeeds, its attempts are used up, or its time is.
  ///
  /// - Throws: ``HookCommand/check()``'s errors, `system` when it can't be started.
  package func run(stop: CancellationFlag) throws(StrobeError) -> HookResult {
    let start = Clock.now()
    let deadline = start + Int64(hook.limitMilliseconds) * 1_000_000
    var attempts = 0
    while true {
      // Each time: an attempt may have replaced the program.
      try hook.check()
      attempts += 1
      let (ending, output) = try attempt(until: deadline, stop: stop)
      let isFinal: Bool
      switch ending {
      case .exited(0), .timedOut, .stopped: isFinal = true
      default: isFinal = attempts > hook.retries || Clock.now() >= deadline
      }
      if isFinal {
        return HookResult(
          ending: ending, attempts: attempts,
          milliseconds: Double(Clock.now() - start) / 1e6,
          output: String(decoding: output, as: UTF8.self))
      }
    }
  }

  private func attempt(
    until deadline: Int64, stop: CancellationFlag
  ) throws(StrobeError) -> (HookResult.Ending, [UInt8]) {
    let pipe = try HookOutput()
    let null = try FileDescriptor(opening: "/dev/null", O_RDWR)
    let process = try ChildProcess(
      hook.program, arguments: [], environment: variables,
      descriptors: [null.number, pipe.writeEnd, pipe.writeEnd])
    pipe.closeWriteEnd()
    onProcess(process.id)
    defer { onProcess(0) }
    while !process.isOver {
      if Clock.now() >= deadline { return (kill(process, .timedOut, pipe), pipe.bytes) }
      if stop.isCancelled { return (kill(process, .stopped, pipe), pipe.bytes) }
      pipe.read(milliseconds: 10)
    }
    pipe.read(milliseconds: 0)
    guard let status = process.collect() else { return (.exited(-1), pipe.bytes) }
    let signal = status & 0x7f
    return (signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal), pipe.bytes)
  }

  private var variables: [String] {
    ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
      + hook.environment.filter { $0.key != "PATH" }.map { "\($0.key)=\($0.value)" }.sorted()
  }

  /// SIGTERM, time to obey, SIGKILL, to all of its process group.
  private func kill(
    _ process: ChildProcess, _ ending: HookResult.Ending, _ pipe: HookOutput
  ) -> HookResult.Ending {
    process.signalGroup(SIGTERM)
    let limit = Clock.after(milliseconds: Self.graceMilliseconds)
    while !process.isOver && Clock.now() < limit { pipe.read(milliseconds: 10) }
    // Also what the program left when it obeyed.
    process.signalGroup(SIGKILL)
    // A program that hangs in the kernel outlives SIGKILL until its call returns: nobody waits for it.
    let end = Clock.after(milliseconds: Self.graceMilliseconds)
    while !process.isOver && Clock.now() < end { pipe.read(milliseconds: 10) }
    if process.isOver { _ = process.collect() }
    return ending
  }
}
