import Engine
import Platform
import SnapshotRepository
import TestSupport

/// One seed from beginning to end.
struct Simulation {
  struct Settings {
    var isSmall = false
    /// Print every line as it happens.
    var echoes = false
    var sabotage: Sabotage?
  }

  struct Outcome {
    /// Over the log, and what the repository holds at the end.
    let digest: UInt64
    let commandCount: Int
    let pointCount: Int
    /// Whether the sabotage that was asked for found something to break.
    let wasSabotaged: Bool
  }

  /// What a failed seed came to.
  struct Failed: Error {
    let reason: String
    let log: [String]
  }

  let seed: UInt64
  let settings: Settings

  func run() throws -> Outcome {
    let world = World(seed: seed, small: settings.isSmall, echo: settings.echoes)
    do {
      return try live(in: world)
    } catch {
      Faults.end()
      let text = (error as? Finding)?.text ?? "\(error)"
      throw Failed(reason: world.log.shortened(text), log: world.log.lines)
    }
  }

  private func live(in world: World) throws -> Outcome {
    try begin(world)
    for number in 1...world.shape.commandCount {
      world.moveClock(by: Int.random(in: 1...3600, using: &world.random) * 1_000_000_000)
      let command = world.nextCommand()
      try command.run(world)
      world.rot.forgetFormer()
      try world.checkListing()
      if number % 30 == 0 { try world.checkEverything() }
    }
    let isSabotaged = try settings.sabotage?.strike(world) ?? false
    if isSabotaged { try world.checkEverything() }
    try end(world)
    return Outcome(
      digest: world.log.digest, commandCount: world.shape.commandCount,
      pointCount: world.pointCount, wasSabotaged: isSabotaged)
  }

  /// Makes the repository; an init that is killed may be run again.
  private func begin(_ world: World) throws {
    let shape = world.shape
    world.log.add(
      "seed \(seed): chunks of \(shape.chunkSize), keyframe after \(shape.keyframeLayerLimit),"
        + " segments of \(shape.segmentRollover), \(world.collections.count) machines,"
        + " \(shape.commandCount) commands")
    let create = Operation(
      kind: "init", text: "init",
      body: { _ in
        _ = try SnapshotEngine.create(at: world.repository, chunkSize: shape.chunkSize)
        return ""
      }, settle: { _, _ in })
    if Int.random(in: 0..<3, using: &world.random) == 0 {
      let plan = FaultPlan(mode: .crash, at: Int.random(in: 1...60, using: &world.random))
      let child = Child(create, in: world, plan, seed: world.random.next())
      guard case .ended(let ending) = try child.wait() else { throw Finding("init stopped") }
      world.note("init, \(plan.text)", ending)
      if case .returned = ending { return }
    }
    let ending = try world.run(create)
    world.note("init", ending)
    if case .failed(let failure) = ending {
      // It was cut off after the configuration was there: then it is a repository.
      try world.require(failure.kind == "exists", "init failed: \(failure.text)")
    }
  }

  /// What is left when everything unneeded is gone is still right; and the digest of it.
  private func end(_ world: World) throws {
    try world.runUndisturbed(world.collectGarbage())
    try world.checkEverything()
    try world.checkNothingLiesAbout()
    guard !world.rot.contains("config.json") else { return }
    for listing in try world.engine().list() {
      for point in listing.points {
        world.log.mix(
          "\(listing.name) \(point.id) \(point.sequence) \(point.created) \(point.consistency)"
            + " \(point.size) \(point.changedBytes) \(point.storedBytes)")
      }
    }
    world.log.mix(filesBelow(world.repository).joined(separator: "\n"))
  }
}
