import Glibc
import Platform
import Synchronization
import TestSupport

/// Many operations and seeds, each in a process of its own, until so many states were checked.
final class Campaign: Sendable {
  struct Sum {
    var rounds = 0
    var tally = Tally()
    var seconds = 0.0
  }

  private struct State {
    var next = 0
    var running = 0
    var checked = 0
    var sums: [String: Sum] = [:]
    var failures = 0
  }

  private let operations: [Operation]
  private let seed: UInt64
  private let variants: Int
  private let few: Int?
  private let wanted: Int
  private let program: String
  private let state = Mutex(State())

  /// - Parameter wanted: states to be checked; every operation is crashed at least once.
  init(_ operations: [Operation], seed: UInt64, variants: Int, few: Int?, wanted: Int) {
    self.operations = operations
    self.seed = seed
    self.variants = variants
    self.few = few
    self.wanted = wanted
    program = resolvedPath("/proc/self/exe")!
  }

  /// - Returns: whether everything held.
  func run(processes: Int) -> Bool {
    let start = now()
    let work: @Sendable () -> Void = { [self] in
      while let job = claim() {
        run(operations[job % operations.count], round: job / operations.count)
      }
    }
    let waits = (0..<max(1, processes)).map { _ in inBackground(work) }
    for wait in waits { wait?() }
    return report(seconds: now() - start)
  }

  private func claim() -> Int? {
    state.withLock { state in
      guard state.next < operations.count || state.checked < wanted else { return nil }
      guard state.failures < 10 else { return nil }
      state.next += 1
      return state.next - 1
    }
  }

  private func run(_ operation: Operation, round: Int) {
    let start = now()
    let words =
      [
        program, "--operation", operation.name, "--seed", "\(seed &+ UInt64(round))", "--variants",
        "\(variants)",
      ] + (few.map { ["--few", "\($0)"] } ?? [])
    let result = try? Shell.capture(words)
    let tally = result.flatMap { Tally(line: $0.output) }
    state.withLock { state in
      if let tally {
        state.checked += tally.checked
        state.sums[operation.name, default: Sum()].add(tally, now() - start)
      }
      guard let result, result.status == 0, tally != nil else {
        state.failures += 1
        print(
          "FAILED with status \(result?.status ?? -1): \(words.dropFirst().joined(separator: " "))")
        print((result?.output ?? "") + (result?.errors ?? ""))
        return
      }
    }
  }

  private func report(seconds: Double) -> Bool {
    state.withLock { state in
      var all = Sum()
      print(Self.row("operation", ["seeds", "steps", "chosen", "states", "gone on", "broken"]))
      for operation in operations {
        guard let sum = state.sums[operation.name] else { continue }
        print(Self.row(operation.name, sum.columns))
        all.rounds += sum.rounds
        all.tally.add(sum.tally)
      }
      print(Self.row("together", all.columns))
      print(all.tally.stepKinds)
      let rate = Int(Double(all.tally.checked) / max(seconds, 0.001))
      print("seed \(seed), \(Int(seconds)) s, \(rate) states a second")
      return state.failures == 0 && all.tally.broken == 0
    }
  }

  private static func row(_ name: String, _ columns: [String]) -> String {
    func padded(_ text: String, _ width: Int) -> String {
      String(repeating: " ", count: max(0, width - text.count)) + text
    }
    return name + String(repeating: " ", count: max(1, 22 - name.count))
      + columns.map { padded($0, 9) }.joined()
  }

  private func now() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

extension Campaign.Sum {
  mutating func add(_ tally: Tally, _ seconds: Double) {
    rounds += 1
    self.tally.add(tally)
    self.seconds += seconds
  }

  var columns: [String] {
    [rounds, tally.steps, tally.chosen, tally.checked, tally.goneOn, tally.broken].map { "\($0)" }
  }
}

extension Tally {
  private static let mark = "tally"
  private static let fields: [any WritableKeyPath<Tally, Int> & Sendable] = [
    \.steps, \.chosen, \.checked, \.goneOn, \.broken, \.writes, \.punches, \.synchronizations,
    \.renames, \.removals,
  ]

  /// What a process of a campaign prints last.
  var line: String {
    ([Self.mark] + Self.fields.map { "\(self[keyPath: $0])" }).joined(separator: " ")
  }

  /// - Parameter output: of such a process.
  init?(line output: String) {
    guard let last = output.split(separator: "\n").last, last.hasPrefix(Self.mark) else {
      return nil
    }
    let numbers = last.split(separator: " ").dropFirst().compactMap { Int($0) }
    guard numbers.count == Self.fields.count else { return nil }
    for (field, number) in zip(Self.fields, numbers) { self[keyPath: field] = number }
  }

  mutating func add(_ other: Tally) {
    for field in Self.fields { self[keyPath: field] += other[keyPath: field] }
  }

  var stepKinds: String {
    "steps: \(writes) writes, \(punches) punches, \(synchronizations) fsyncs, \(renames) renames, "
      + "\(removals) removals, \(steps - writes - punches - synchronizations - renames - removals) new names"
  }
}
