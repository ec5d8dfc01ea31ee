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
    let named = try namedObjects(repository, stop)
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

  /// The names of all layers and segments that some point needs.
  private static func namedObjects(
    _ repository: Repository, _ stop: CancellationFlag
  ) throws(StrobeError) -> Set<String> {
    var points: Set<String> = []
    var layers: Set<ObjectID> = []
    while try readNewPoints(repository, &points, &layers, stop) {}
    var named = Set(layers.map(\.layerName))
    for layer in layers {
      try stop.check()
      do throws(StrobeError) {
        for segment in try LayerReader(repository.store, layer).segments {
          named.insert(segment.segmentName)
        }
      } catch {
        throw unreadable(error)
      }
    }
    return named
  }

  /// Reads the points that were not read yet.
  ///
  /// - Returns: true when there were such, or one vanished: a listing that was made meanwhile may have
  ///   missed one, so another is needed.
  private static func readNewPoints(
    _ repository: Repository, _ read: inout Set<String>, _ layers: inout Set<ObjectID>,
    _ stop: CancellationFlag
  ) throws(StrobeError) -> Bool {
    var isNew = false
    for collection in try repository.collections() {
      for file in try repository.store.names(in: "collections/\(collection)")
      where file.hasSuffix(".json") {
        let id = String(file.dropLast(5))
        guard PassID(id) != nil, !read.contains("\(collection)/\(id)") else { continue }
        try stop.check()
        isNew = true
        do throws(StrobeError) {
          for disk in try RestorePoint.read(repository.store, collection, id).disks {
            layers.formUnion(disk.layerIDs)
          }
          read.insert("\(collection)/\(id)")
        } catch {
          if error.reason != .notFound { throw unreadable(error) }
        }
      }
    }
    return isNew
  }

  private static func unreadable(_ error: StrobeError) -> StrobeError {
    if error.reason == .cancelled { return error }
    return error.explained(
      "nothing was freed, because it can't be known what is still needed: \(error.message)",
      advice: "restore that object, or delete the points that need it, and run gc again")
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
