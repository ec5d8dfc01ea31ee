package import Platform

// Frees whole objects that nothing names. Order matters; each step says why it is safe:
//
//   1. List all layers and segments: only these may go. What appears later is not looked at.
//   2. Ask of each object's pass whether it is alive: a live pass's objects stay. A pass that isn't alive
//      any more has published its point before this moment, or never will.
//   3. Read all points: what they name stays. A listing may miss a point that appears while its parent
//      vanishes: points are listed again until a listing brings nothing new.
//   4. Remove the rest, layers first.
//
// Anything unreadable in step 3 ends it before anything is removed.

package enum GarbageCollection {
  package struct Outcome: Sendable {
    package var layers = 0
    package var segments = 0
    /// Bytes of removed objects.
    package var bytes = 0
    /// Objects that were left because their pass is running.
    package var inUse = 0
  }

  package static func run(
    _ repository: Repository, dryRun: Bool, stop: CancellationFlag
  ) throws(StrobeError) -> Outcome {
    let store = repository.store
    guard let lock = try store.lock("locks/gc", note: "gc") else {
      throw StrobeError(.busy, "another gc is running", advice: "wait for it")
    }
    defer { lock.release() }
    if !dryRun { try PassRegistration.sweep(store) }
    let candidates = try Set(objects(store, "layers") + objects(store, "segments"))
    let alive = try livePasses(store, candidates)
    let named = try ReferencedObjects.names(store, stop)
    var outcome = Outcome()
    for name in candidates.subtracting(named).sorted() {
      try stop.check()
      guard let id = ObjectID(lastComponent(name)) else { continue }
      if alive.contains(id.pass) {
        outcome.inUse += 1
        continue
      }
      do throws(StrobeError) {
        outcome.bytes += try store.open(name).size
      } catch {
        // A pass that started meanwhile has cleaned up after a dead one.
        if error.reason == .notFound { continue }
        throw error
      }
      if name.hasPrefix("layers/") { outcome.layers += 1 } else { outcome.segments += 1 }
      if !dryRun { try store.remove(name) }
    }
    if !dryRun { try removeLeftovers(repository) }
    return outcome
  }

  private static func objects(_ store: any ObjectStore, _ room: String) throws(StrobeError)
    -> [String]
  {
    var found: [String] = []
    for folder in try store.names(in: room) {
      for name in try store.names(in: "\(room)/\(folder)") where ObjectID(name) != nil {
        found.append("\(room)/\(folder)/\(name)")
      }
    }
    return found
  }

  private static func livePasses(
    _ store: any ObjectStore, _ names: Set<String>
  ) throws(StrobeError) -> Set<PassID> {
    var alive: Set<PassID> = []
    for pass in Set(names.compactMap { ObjectID(lastComponent($0))?.pass })
    where try PassRegistration.isAlive(store, pass) { alive.insert(pass) }
    return alive
  }

  private static func removeLeftovers(_ repository: Repository) throws(StrobeError) {
    try repository.store.removeLeftovers(in: ".")
    try repository.store.removeLeftovers(in: "collections")
    for collection in try repository.collections() {
      try repository.store.removeLeftovers(in: "collections/\(collection)")
      try repository.store.removeLeftovers(in: "cache/\(collection)")
    }
  }
}
