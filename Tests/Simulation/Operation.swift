import Engine
import Platform

// What the program can be asked to do, in a form that can be run undisturbed, with faults, beside another, or
// in a process that is killed; and what has to be true afterwards in each case.

/// A failure as it comes back from wherever the operation ran.
struct Failure {
  let kind: String
  let text: String

  init(kind: String, text: String) {
    self.kind = kind
    self.text = text
  }

  init(_ error: StrobeError) { self.init(kind: error.kind, text: error.description) }
}

/// How an operation ended.
enum Ending {
  case returned(String)
  case failed(Failure)
  case killed

  /// What every run of the seed says.
  var brief: String {
    switch self {
    // What is meant for the model alone has separators.
    case .returned(let text): text.contains { $0 < " " } || text.isEmpty ? "done" : "done \(text)"
    case .failed(let failure): "failed: \(failure.kind)"
    case .killed: "killed"
    }
  }

  var detail: String {
    if case .failed(let failure) = self { return failure.text }
    return ""
  }
}

/// Which failures the circumstances allow, beside those that rot explains.
struct Tolerance {
  /// Errors of system calls that were injected.
  var errnos: Set<Int32> = []
  /// Another operation runs at the same time.
  var isConcurrent = false
  var mayBeCancelled = false

  static let strict = Tolerance()

  var isStrict: Bool { errnos.isEmpty && !isConcurrent && !mayBeCancelled }

  func allows(_ failure: Failure) -> Bool {
    if mayBeCancelled && failure.kind == "cancelled" { return true }
    // What another operation holds, and what it deleted.
    if isConcurrent && ["busy", "notFound"].contains(failure.kind) { return true }
    return errnos.contains { failure.kind == "errno \($0)" }
  }
}

struct Operation {
  /// The kind of command, for statistics.
  let kind: String
  /// What is done to what.
  let text: String
  /// Runs it; may be called in another process. Returns what `settle` needs to know.
  let body: (CancellationFlag) throws -> String
  /// Brings the model up to date, or says what must not be.
  let settle: (Ending, Tolerance) throws -> Void
}

extension World {
  /// Runs an operation in this process.
  func run(_ operation: Operation, _ stop: CancellationFlag = CancellationFlag()) throws -> Ending {
    do {
      return .returned(try operation.body(stop))
    } catch let error as StrobeError {
      return .failed(Failure(error))
    }
  }

  /// Runs an operation undisturbed: it has to succeed, but for what rot explains.
  func runUndisturbed(_ operation: Operation) throws {
    Faults.count()
    let ending = try run(operation)
    usualCalls[operation.kind] = Faults.end()
    note(operation.text, ending)
    try operation.settle(ending, .strict)
  }

  func note(_ text: String, _ ending: Ending) {
    log.add("\(text): \(log.shortened(ending.brief))", detail: ending.detail)
  }

  /// - Throws: unless the failure is one that had to be expected.
  func judge(_ failure: Failure, _ tolerance: Tolerance, _ what: String) throws {
    if tolerance.allows(failure) || rot.explains(failure) { return }
    // Only rot takes a protected point's document away; that may be long ago.
    if failure.text.contains("the document of a protected point") { return }
    throw Finding("\(what) failed without a reason: \(failure.kind): \(failure.text)")
  }
}
