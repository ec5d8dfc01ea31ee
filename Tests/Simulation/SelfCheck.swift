/// Proves that the simulation is deterministic, and that it can fail.
struct SelfCheck {
  let settings: Simulation.Settings
  let first: UInt64

  /// Seeds that each sabotage is tried on; it doesn't find something to break in all of them.
  private static let seedCount: UInt64 = 16

  /// - Returns: whether it may be believed.
  func run() -> Bool {
    var holds = isDeterministic()
    for sabotage in Sabotage.allCases where !isFound(sabotage) { holds = false }
    print(holds ? "simulate: the self-check passed" : "simulate: the self-check FAILED")
    return holds
  }

  /// The same seeds twice, in other processes and in another order, have the same digests.
  private func isDeterministic() -> Bool {
    let seeds = first...(first + 5)
    let once = Runner(seeds: seeds, jobs: 1, settings: settings, isQuiet: true)
    let again = Runner(seeds: seeds, jobs: 3, settings: settings, isQuiet: true)
    guard once.run(), again.run() else {
      print("self-check: seeds failed: \(once.failedSeeds) \(again.failedSeeds)")
      return false
    }
    let isSame = once.digests == again.digests
    let areDifferent = Set(once.digests.values).count == seeds.count
    print(
      "self-check: \(seeds.count) seeds twice: \(isSame ? "the same" : "OTHER") digests,"
        + " \(areDifferent ? "all different" : "SOME ALIKE")")
    return isSame && areDifferent
  }

  private func isFound(_ sabotage: Sabotage) -> Bool {
    var settings = settings
    settings.sabotage = sabotage
    let runner = Runner(
      seeds: first...(first + Self.seedCount - 1), jobs: 2, settings: settings, isQuiet: true)
    _ = runner.run()
    let missed = runner.struck
    let isFound = missed.isEmpty && !runner.failedSeeds.isEmpty
    print(
      "self-check: \(sabotage.rawValue): found in \(runner.failedSeeds.count) of \(Self.seedCount) seeds"
        + (missed.isEmpty ? "" : ", MISSED in \(missed.sorted())"))
    return isFound
  }
}
