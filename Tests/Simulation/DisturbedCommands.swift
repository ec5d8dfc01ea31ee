import Engine
import FaultLayer
import Glibc
import Platform
import SimulationCalls
import Synchronization
import TestSupport

// Operations that don't go as they should: killed, cancelled, refused by the kernel, beside one another.

extension World {
  /// A call number at which to disturb an operation, most often one that it reaches.
  fileprivate func anyCall(of operation: Operation) -> Int {
    let usual = usualCalls[operation.kind] ?? 100
    return Int.random(in: 1...max(2, usual * 11 / 10), using: &random)
  }

  /// Whether the operation leaves something for the next to find.
  fileprivate func settleAfterwards() throws {
    // What a killed pass left must not hinder anybody: half the time gc looks at once.
    if Int.random(in: 0..<4, using: &random) == 0 { try runUndisturbed(collectGarbage()) }
  }
}

extension Command {
  static let crash = Command(name: "crash", weight: 9) { world in
    let operation = world.anyOperation()
    let plan = FaultPlan(mode: .crash, at: world.anyCall(of: operation))
    let child = Child(operation, in: world, plan, seed: world.random.next())
    guard case .ended(let ending) = try child.wait() else {
      throw Finding("\(operation.text) stopped by itself")
    }
    world.note("\(operation.text), \(plan.text)", ending)
    try operation.settle(ending, .strict)
    try world.settleAfterwards()
  }

  static let cancellation = Command(name: "cancel", weight: 3) { world in
    let operation = world.anyOperation()
    let limit = Int.random(in: 0...60, using: &world.random)
    let count = Counter()
    let ending = try world.run(
      operation, CancellationFlag(external: { count.next() > limit }))
    world.note("\(operation.text), cancelled after \(limit)", ending)
    var tolerance = Tolerance()
    tolerance.mayBeCancelled = true
    try operation.settle(ending, tolerance)
  }

  static let fault = Command(name: "fault", weight: 9) { world in
    let operation = world.anyOperation()
    let isFull = Bool.random(using: &world.random)
    let error = isFull ? ENOSPC : EIO
    let count = isFull || Bool.random(using: &world.random) ? 0 : 1
    var plan = FaultPlan(mode: .fail(error, count: count), at: 1)
    let space =
      FAULTLAYER_WRITE | FAULTLAYER_CREATE | FAULTLAYER_MKDIR | FAULTLAYER_LINK
      | FAULTLAYER_ALLOCATE
    let media =
      FAULTLAYER_READ | FAULTLAYER_WRITE | FAULTLAYER_SYNC | FAULTLAYER_OPEN | FAULTLAYER_LIST
    let kinds =
      isFull
      ? space
      : [media, FAULTLAYER_READ, FAULTLAYER_SYNC].randomElement(
        using: &world.random)!
    // Of all calls some are of these kinds; the first of them are as worth failing as the last.
    let usual = world.usualCalls[operation.kind] ?? 100
    let most = Int.random(in: 2...max(4, usual / 4), using: &world.random)
    plan = FaultPlan(
      mode: plan.mode, at: Int.random(in: 1...most, using: &world.random),
      folders: isFull || Bool.random(using: &world.random)
        ? SIMULATION_REPOSITORY | SIMULATION_ELSEWHERE
        : SIMULATION_REPOSITORY | SIMULATION_DISKS,
      calls: kinds)
    Faults.arm(plan)
    defer { Faults.end() }
    let ending = try world.run(operation)
    Faults.end()
    let failed = simulation_failed_calls()
    world.note("\(operation.text), \(plan.text): \(failed) calls failed", ending)
    var tolerance = Tolerance()
    if failed > 0 { tolerance.errnos = [error] }
    try operation.settle(ending, tolerance)
  }

  /// One operation is stopped in the middle, others run to their end, then it goes on or is killed. The
  /// same as two processes at once, but in an order that the seed reproduces.
  static let together = Command(name: "together", weight: 8) { world in
    let first = world.anyOperation()
    let plan = FaultPlan(mode: .stop, at: world.anyCall(of: first))
    let child = Child(first, in: world, plan, seed: world.random.next())
    let state = try child.wait()
    guard case .stopped = state else {
      guard case .ended(let ending) = state else { return }
      world.note("\(first.text), over before \(plan.text)", ending)
      return try first.settle(ending, .strict)
    }
    var isOver = false
    defer {
      if !isOver {
        child.end()
        _ = try? child.wait()
      }
    }
    world.log.add("\(first.text), \(plan.text); meanwhile:")
    var tolerance = Tolerance()
    tolerance.isConcurrent = true
    for _ in 0..<Int.random(in: 1...2, using: &world.random) {
      let other = world.anyOperation()
      let ending = try world.run(other)
      world.note("  " + other.text, ending)
      try other.settle(ending, tolerance)
    }
    let isKilled = Int.random(in: 0..<3, using: &world.random) == 0
    if isKilled { child.end() } else { child.goOn() }
    guard case .ended(let ending) = try child.wait() else { throw Finding("stopped again") }
    isOver = true
    world.note("  and \(first.text)", ending)
    try first.settle(ending, tolerance)
    try world.settleAfterwards()
  }
}

/// Counts questions from whatever thread.
private final class Counter: Sendable {
  private let value = Atomic<Int>(0)
  func next() -> Int { value.wrappingAdd(1, ordering: .relaxed).newValue }
}
