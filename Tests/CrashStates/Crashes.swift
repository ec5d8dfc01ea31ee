import FaultLayer
import Glibc
import Platform
import TestSupport

/// What one operation of one seed came to.
struct Tally {
  var steps = 0
  /// Of the steps, by kind.
  var writes = 0
  var punches = 0
  var synchronizations = 0
  var renames = 0
  var removals = 0
  /// States that were chosen.
  var chosen = 0
  /// States that were opened and checked, each different from all others of the operation and seed.
  var checked = 0
  /// Those of them that were worked on with.
  var goneOn = 0
  var broken = 0
}

extension Tally {
  mutating func count(_ recorded: [Step]) {
    steps += recorded.count
    for step in recorded {
      switch step.kind {
      case .data(_, .punch), .data(_, .zero): punches += 1
      case .data: writes += 1
      case .synchronize, .synchronizeFolder, .synchronizeAll: synchronizations += 1
      case .rename, .exchange, .link: renames += 1
      case .unlink, .removeFolder: removals += 1
      case .known, .create, .unnamed, .makeFolder, .note: break
      }
    }
  }
}

/// Crashes one operation at every step.
struct Crashes {
  let operation: Operation
  let seed: UInt64
  /// States of each prefix.
  let variants: Int
  /// So many of them, chosen anew for each prefix; nil: all.
  var few: Int?
  /// One state in so many is worked on with.
  var share = 16
  var sabotage: Sabotage?
  /// A step that is left out.
  var without: Int?
  /// Only this one, loudly.
  var onlyPrefix: Int?
  var onlyVariant: Int?
  var brokenLimit = 3
  var isQuiet = false

  func run() throws -> Tally {
    let folder = TemporaryDirectory.inMemory()
    let play = try Play(folder.path, seed: mixed(seed, UInt64(operation.name.utf8.count), nameMark))
    try operation.play(play)
    var (model, steps) = try play.recorded()
    if let sabotage { steps = sabotage.applied(to: steps) }
    if let without, steps.indices.contains(without) { steps[without] = .nothing }
    // What the next snapshot sees differs from all points.
    try play.changeDisks()
    if onlyPrefix != nil {
      for (index, step) in steps.enumerated() { print("\(index): \(step.description)") }
      print("points:", play.points.map { "\($0.id) \($0.life)" }, "damage:", play.damage)
    }
    let tree = WorkTree(folder.path + "/state")
    let check = StateCheck(play: play, tree: tree, folder: folder.path)
    var tally = Tally()
    tally.count(steps)
    var seen: Set<UInt64> = []
    for prefix in 0...steps.count {
      if prefix > 0 { try model.apply(steps[prefix - 1]) }
      if let onlyPrefix, prefix != onlyPrefix { continue }
      for variant in chosenVariants(prefix) {
        try crash(model, prefix, variant, check, &seen, &tally)
        if tally.broken >= brokenLimit { return tally }
      }
    }
    return tally
  }

  /// Leaves out every fsync in turn, and tells which ones nothing misses.
  func leaveOutEach() throws {
    let folder = TemporaryDirectory.inMemory()
    let play = try Play(folder.path, seed: mixed(seed, UInt64(operation.name.utf8.count), nameMark))
    try operation.play(play)
    let steps = try play.recorded().steps
    let files = Step.names(steps)
    for (index, step) in steps.enumerated() {
      let what: String
      switch step.kind {
      case .synchronize(let object): what = "file " + (files[object] ?? "without a name")
      case .synchronizeFolder(let path): what = "folder " + (path.isEmpty ? "." : path)
      default: continue
      }
      var crashes = self
      crashes.without = index
      crashes.brokenLimit = 1
      crashes.isQuiet = true
      let isMissed = try crashes.run().broken > 0
      print("\(isMissed ? "needed    " : "not missed") step \(index): fsync of \(what)")
    }
  }

  private var nameMark: UInt64 { operation.name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) } }

  private func chosenVariants(_ prefix: Int) -> [Int] {
    if let onlyVariant { return [onlyVariant] }
    var random = SeededGenerator(seed: mixed(seed, nameMark, UInt64(prefix)))
    guard let few, few < variants else { return Array(0..<variants) }
    return (0..<variants).shuffled(using: &random).prefix(few).sorted()
  }

  private func crash(
    _ model: FileSystemModel, _ prefix: Int, _ variant: Int, _ check: StateCheck,
    _ seen: inout Set<UInt64>, _ tally: inout Tally
  ) throws {
    var random = SeededGenerator(seed: mixed(seed, nameMark, UInt64(prefix), UInt64(variant)))
    let state = model.state(variant, &random)
    tally.chosen += 1
    // The same tree after more steps may have to hold more.
    var expectation: UInt64 = prefix < check.play.isThereFrom ? 1 : 2
    for healed in check.play.damage.values { expectation += prefix < healed ? 2 : 0 }
    for point in check.play.points {
      expectation = mixed(expectation, point.expectation(after: prefix))
    }
    guard seen.insert(mixed(state.mark, expectation)).inserted || onlyVariant != nil else { return }
    tally.checked += 1
    faultlayer_seed_random(mixed(seed, UInt64(prefix), UInt64(variant)))
    let goesOn = Int.random(in: 0..<share, using: &random) == 0
    do {
      try check.tree.become(state)
      let damaged = try check.check(after: prefix)
      if goesOn {
        tally.goneOn += 1
        try check.goOn(damaged: damaged, &random)
      }
    } catch {
      tally.broken += 1
      check.tree.wasChanged()
      if isQuiet { return }
      print("BROKEN: \(operation.name) cut off after step \(prefix): \(error)")
      print(
        "  again: crash-states --operation \(operation.name) --seed \(seed) --prefix \(prefix)"
          + " --variant \(variant)" + (sabotage.map { " --sabotage \($0.rawValue)" } ?? "")
          + (without.map { " --without \($0)" } ?? ""))
    }
  }
}

extension TemporaryDirectory {
  static func inMemory() -> TemporaryDirectory { TemporaryDirectory(in: "/dev/shm") }
}
