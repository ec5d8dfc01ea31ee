import TestSupport

/// One thing that may happen in a world. To add one: a file with an extension of `Command`, and its place
/// in `all`.
struct Command: Sendable {
  let name: String
  /// How often it is chosen, beside the others.
  let weight: Int
  var when: any KeyPath<World, Bool> & Sendable = \World.isAlways
  let run: @Sendable (World) throws -> Void

  static let all: [Command] = [
    writes, machine, snapshots, deletion, collection, verification, restoring, rollback, difference,
    lookup, clock, lostCaches, wholeCheck, crash, cancellation, fault, together, decay, recovery,
    repair, amputation, healing, salvage, protection, retention,
    takeOver,
  ]
}

// When a command is possible.
extension World {
  fileprivate var isAlways: Bool { true }
  var hasPoints: Bool { pointCount > 0 }
  var hasTwoPoints: Bool { pointCount > 1 }
  fileprivate var hasRoom: Bool { pointCount < shape.pointLimit * collections.count }
}

extension World {
  /// Chooses what happens next.
  func nextCommand() -> Command {
    let possible = Command.all.filter { self[keyPath: $0.when] }
    var number = Int.random(in: 0..<possible.reduce(0) { $0 + $1.weight }, using: &random)
    for command in possible {
      if number < command.weight { return command }
      number -= command.weight
    }
    return possible[0]
  }

  /// One of the operations, for those commands that disturb it.
  func anyOperation() -> Operation {
    let collection = collections.randomElement(using: &random)!
    switch Int.random(in: 0..<12, using: &random) {
    case 0 where !collection.points.isEmpty, 1 where !collection.points.isEmpty:
      return delete(collection)
    case 2: return collectGarbage()
    case 3: return Bool.random(using: &random) ? verify(nil) : heal(nil)
    case 4, 5:
      if let (owner, point) = anyPoint() { return restore(owner, point) }
      return snapshot(collection)
    case 6 where !collection.points.isEmpty: return prune(collection)
    case 7:
      if let (owner, point) = anyPoint() { return protect(owner, point) }
      return snapshot(collection)
    default: return snapshot(collection)
    }
  }
}

extension Command {
  static let writes = Command(name: "write", weight: 22) { world in
    let collection = world.collections.randomElement(using: &world.random)!
    for disk in collection.disks where Bool.random(using: &world.random) {
      let old = collection.points.suffix(4).compactMap { $0.disks[disk.name] }
      let what = disk.change(&world.random, old: old)
      world.log.add("write \(collection.name) \(disk.name): \(what)")
    }
  }

  static let machine = Command(name: "machine", weight: 3) { world in
    let collection = world.collections.randomElement(using: &world.random)!
    switch Int.random(in: 0..<4, using: &world.random) {
    case 0 where collection.disks.count < 4:
      world.addDisk(to: collection)
      world.log.add("machine \(collection.name): one disk more")
    case 1 where collection.disks.count > 1:
      let index = Int.random(in: 0..<collection.disks.count, using: &world.random)
      let disk = collection.disks.remove(at: index)
      unlinkFile(disk.path)
      world.log.add("machine \(collection.name): \(disk.name) is gone")
    default:
      let disk = collection.disks.randomElement(using: &world.random)!
      let isCopy = Bool.random(using: &world.random)
      let content =
        isCopy
        ? disk.content : world.random.bytes(Int.random(in: 1...600, using: &world.random) * 512)
      disk.replace(with: content)
      world.log.add("machine \(collection.name): \(disk.name) is another, copy: \(isCopy)")
    }
  }

  static let snapshots = Command(
    name: "snapshot", weight: 24,
    when: \World.hasRoom
  ) { world in
    let collection = world.collections.randomElement(using: &world.random)!
    try world.runUndisturbed(world.snapshot(collection))
  }

  static let deletion = Command(name: "delete", weight: 7, when: \World.hasTwoPoints) {
    world in
    guard let (collection, _) = world.anyPoint() else { return }
    try world.runUndisturbed(world.delete(collection))
  }

  static let collection = Command(name: "gc", weight: 6) { world in
    try world.runUndisturbed(world.collectGarbage())
  }

  static let verification = Command(name: "verify", weight: 4) { world in
    let one = world.known.randomElement(using: &world.random)
    try world.runUndisturbed(world.verify(Bool.random(using: &world.random) ? one : nil))
  }

  static let restoring = Command(name: "restore", weight: 6, when: \World.hasPoints) {
    world in
    guard let (collection, point) = world.anyPoint() else { return }
    try world.runUndisturbed(world.restore(collection, point))
  }

  static let wholeCheck = Command(name: "check", weight: 2) { try $0.checkEverything() }

  static let clock = Command(name: "clock", weight: 6) { world in
    let year = 31_557_600_000_000_000
    let step = Int.random(in: -year...year, using: &world.random)
    world.moveClock(by: step)
    world.log.add("clock moves by \(step / 86_400_000_000_000) days")
  }

  static let lostCaches = Command(name: "caches", weight: 4) { world in
    let cache = world.repository + "/cache"
    for file in filesBelow(cache) {
      switch Int.random(in: 0..<4, using: &world.random) {
      case 0: unlinkFile(cache + "/" + file)
      case 1: world.scratch("cache/" + file)
      default: break
      }
    }
    world.haveTablesRotted = true
    // What an interrupted pass noted is believed no more than a cache.
    for file in filesBelow(world.repository + "/journal")
    where Int.random(in: 0..<6, using: &world.random) == 0 {
      world.scratch("journal/" + file)
      world.haveJournalsRotted = true
    }
    world.log.add("caches lost or scratched")
  }
}
