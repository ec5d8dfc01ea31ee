import BlockDevices
import Glibc
import Platform
import Quiescing
import SnapshotRepository

/// The hooks of a pass: when they run, and what came of them.
struct HookRun {
  private let options: SnapshotOptions.Hooks
  private let environment: [String: String]
  private(set) var records: [HookRecord] = []
  private var hasStarted = false

  init(_ context: PassContext) {
    options = context.options.hooks
    environment = [
      "STROBE_COLLECTION": context.collection.name,
      "STROBE_POINT": context.id.description,
      "STROBE_DISKS": context.plans.map { "\($0.name)=\($0.source.path)" }.joined(separator: "\n"),
    ]
  }

  /// Looks at the programs before anything begins.
  func check() throws(StrobeError) {
    if let program = options.preFreeze {
      try command(program, "pre-freeze", extraSeconds: 0).check()
    }
    if let program = options.postThaw { try command(program, "post-thaw", extraSeconds: 0).check() }
  }

  /// Whether pre-freeze hooks, if they succeed, say that the applications' data is at rest.
  var promiseRest: Bool { options.preFreeze != nil && options.bringRest }

  /// Whether a pre-freeze hook ran, and no hook failed. Who only runs a post-thaw hook asked nobody.
  var succeeded: Bool {
    records.contains { $0.phase == "pre-freeze" } && records.allSatisfy { $0.failure == nil }
  }

  var weaknesses: [String] {
    records.compactMap { record in
      record.failure.map {
        "the \(record.phase) hook \(record.program) \($0)\(Self.said(record.output))"
      }
    }
  }

  /// The beginning of what a hook wrote, in one line.
  private static func said(_ output: String) -> String {
    let lines = output.split(separator: "\n").map { line in
      line.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }.filter { !$0.isEmpty }
    return lines.isEmpty ? "" : " (\(lines.joined(separator: " / ").prefix(400)))"
  }

  /// What the guardian runs when we are gone.
  func postThaw(after windowMilliseconds: Int) -> HookCommand? {
    options.postThaw.map {
      // It may start as late as the end of the other hook and of the longest window.
      command($0, "post-thaw", extraSeconds: options.timeoutSeconds + windowMilliseconds / 1000)
    }
  }

  mutating func preFreeze(
    _ session: FreezeSession, stop: CancellationFlag
  ) throws(StrobeError) {
    guard options.areThere else { return }
    records = []
    hasStarted = true
    session.hooksStarted()
    guard let program = options.preFreeze else { return }
    try run(
      command(program, "pre-freeze", extraSeconds: 0), "pre-freeze", session, stop: stop)
  }

  /// Lets applications go on, once.
  mutating func postThaw(_ session: FreezeSession) throws(StrobeError) {
    guard hasStarted else { return }
    hasStarted = false
    defer { session.hooksFinished() }
    guard let program = options.postThaw else { return }
    // Whoever was told to stop still has to wake up what it put to rest.
    try run(
      command(program, "post-thaw", extraSeconds: 0), "post-thaw", session, stop: CancellationFlag()
    )
  }

  private func command(_ program: String, _ phase: String, extraSeconds: Int) -> HookCommand {
    var variables = environment
    variables["STROBE_PHASE"] = phase
    variables["STROBE_DEADLINE"] = "\(time(nil) + options.timeoutSeconds + extraSeconds)"
    return HookCommand(
      program: program, environment: variables,
      limitMilliseconds: options.timeoutSeconds * 1000, retries: options.retries)
  }

  private mutating func run(
    _ command: HookCommand, _ phase: String, _ session: FreezeSession, stop: CancellationFlag
  ) throws(StrobeError) {
    var record: HookRecord
    do throws(StrobeError) {
      let result = try HookRunner(command, onProcess: session.hookProcess).run(stop: stop)
      record = HookRecord(
        phase: phase, program: command.program, failure: failure(result), attempts: result.attempts,
        milliseconds: result.milliseconds, output: result.output)
      if result.ending == .stopped { try stop.check() }
    } catch {
      guard error.reason != .cancelled else { throw error }
      record = HookRecord(
        phase: phase, program: command.program, failure: "could not be run: \(error.message)",
        attempts: 0, milliseconds: 0, output: "")
    }
    records.append(record)
    guard let failure = record.failure, options.failureEndsPass else { return }
    throw StrobeError(
      .refused,
      "the \(phase) hook \(command.program) \(failure)\(Self.said(record.output)); nothing was committed",
      advice: "mend it, or take the point without it (--hook-failure continue)")
  }

  private func failure(_ result: HookResult) -> String? {
    switch result.ending {
    case .exited(0): nil
    case .exited(let status): "ended with status \(status)"
    case .killed(let signal): "was killed by signal \(signal)"
    case .timedOut: "did not end within \(options.timeoutSeconds) s and was killed"
    case .stopped: "was stopped"
    }
  }
}
