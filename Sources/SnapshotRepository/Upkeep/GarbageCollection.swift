import Glibc
package import Platform

// Gives back what no point needs. Order matters; each step says why it is safe:
//
//   1. List all layers, segments and repairs: only these may be touched from now on, whatever names others.
//   2. Ask of each object's pass whether it is alive: a live pass's objects stay. A pass that isn't alive
//      any more has published its point and its repairs before this moment, or never will.
//      Then ask which passes have a journal: their segments stay whole (`PassJournal.swift`).
//   3. Read all points, until a listing brings nothing new: what they name stays.
//   4. Remove the rest, layers first.
//   5. Free the dead parts of the segments that stay.
//   6. Merge layers that no point separates, and do 1 to 5 again if there were any.
//
// Anything unreadable in step 3 ends it before anything is removed, in step 5 before any part is freed.

package enum GarbageCollection {
  package struct Options: Sendable {
    package var isDryRun = false
    /// The dead share of a segment from which on it is written again, where its store can't free parts.
    package var maxUnused = 0.1
    /// Whether parts of segments are freed in place; else segments are written again.
    package var mayPunch = true
    /// Whether what interrupted snapshots stored goes, which the next would take over. Otherwise it goes after
    /// a week.
    package var dropsUnfinished = false

    package init() {}
  }

  package struct Outcome: Sendable {
    /// Objects removed.
    package var layers = 0
    package var segments = 0
    /// Bytes of removed objects.
    package var removedBytes = 0
    /// Bytes freed in segments that stay.
    package var freedParts = 0
    /// Layers that others were merged into; those that were merged, and the bytes of the new ones.
    package var merges = 0
    package var mergedLayers = 0
    package var mergedBytes = 0
    package var rewrittenSegments = 0
    /// Objects, and merges, that were left because somebody works with them.
    package var objectsInUse = 0
    package var mergesInUse = 0
    /// What the reader should know.
    package var warnings: [String] = []
    /// Bytes of segments that were left because their pass was interrupted and the next may need them.
    package var unfinishedBytes = 0

    package var inUse: Int { objectsInUse + mergesInUse }

    /// Bytes that came free, all in all.
    package var bytes: Int { max(0, removedBytes + freedParts - mergedBytes) }
  }

  package static func run(
    _ repository: Repository, _ options: Options = Options(), stop: CancellationFlag
  ) throws(StrobeError) -> Outcome {
    let store = repository.store
    let lock = try takeLock(store, options)
    defer { lock?.release() }
    var outcome = Outcome()
    try removeUnnamed(repository, options, stop, &outcome)
    try merge(repository, options, stop, &outcome)
    if !options.isDryRun {
      // Now that what dead passes left is gone, and counted: their registrations.
      try PassRegistration.sweep(store)
      try removeLeftovers(repository)
    }
    return outcome
  }

  /// Who only counts does without where nothing can be written.
  private static func takeLock(
    _ store: any ObjectStore, _ options: Options
  ) throws(StrobeError) -> (any StoreLock)? {
    do throws(StrobeError) {
      if let lock = try store.lock("locks/gc", note: LockNote("gc").description) { return lock }
    } catch {
      guard options.isDryRun, error.errno == EROFS || error.errno == EACCES else { throw error }
      return nil
    }
    throw StrobeError(.busy, "another gc is running", advice: "wait for it")
  }

  /// Merging needs room for the merged layers, and frees little: it comes last, and a full store does without.
  private static func merge(
    _ repository: Repository, _ options: Options, _ stop: CancellationFlag,
    _ outcome: inout Outcome
  ) throws(StrobeError) {
    do throws(StrobeError) {
      try LayerMerging(repository: repository, options: options, stop: stop).run(&outcome)
    } catch {
      if error.reason == .cancelled { throw error }
      outcome.warnings.append("layers were not merged: \(error.message)")
    }
    // What was merged is no longer named.
    if outcome.merges > 0 && !options.isDryRun {
      try removeUnnamed(repository, options, stop, &outcome)
    }
  }

  /// Reads what must be known before anything is freed.
  private static func known<Result>(
    _ body: () throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    do throws(StrobeError) { return try body() } catch {
      if error.reason == .cancelled { throw error }
      throw error.explained(
        "nothing was freed, because it can't be known what is still needed: \(error.message)",
        advice: "put that right, or delete the points that need it, and run gc again")
    }
  }

  private static func removeUnnamed(
    _ repository: Repository, _ options: Options, _ stop: CancellationFlag,
    _ outcome: inout Outcome
  ) throws(StrobeError) {
    let store = repository.store
    let dropped = try UnfinishedPasses.removeJournals(
      repository, all: options.dropsUnfinished, dryRun: options.isDryRun)
    let candidates = try Set(
      objects(store, "layers") + objects(store, "segments") + objects(store, "repairs"))
    let alive = try livePasses(store, candidates)
    let unfinished = try UnfinishedPasses.all(store).subtracting(dropped)
    let history = try known { () throws(StrobeError) in try History.read(store, stop) }
    let named = try known { () throws(StrobeError) in
      try ReferencedObjects.names(store, history, stop)
    }
    let reclaim = SegmentReclaim(
      store: store, options: options, candidates: candidates, inUse: alive.union(unfinished),
      stop: stop)
    var inUse = 0
    var unfinishedBytes = 0
    for name in candidates.subtracting(named).sorted() {
      try stop.check()
      guard let id = ObjectID(lastComponent(name)) else { continue }
      if alive.contains(id.pass) {
        inUse += 1
        continue
      }
      do throws(StrobeError) {
        let size = try store.storage(of: name).allocated
        if name.hasPrefix("segments/") && unfinished.contains(id.pass) {
          unfinishedBytes += size
          continue
        }
        outcome.removedBytes += size
      } catch {
        // A pass that started meanwhile has cleaned up after a dead one.
        if error.reason == .notFound { continue }
        throw error
      }
      if name.hasPrefix("layers/") { outcome.layers += 1 }
      if name.hasPrefix("segments/") { outcome.segments += 1 }
      if !options.isDryRun { try store.remove(name) }
    }
    outcome.objectsInUse = inUse
    outcome.unfinishedBytes = unfinishedBytes
    try reclaim.run(history, &outcome)
  }

  static func objects(_ store: any ObjectStore, _ room: String) throws(StrobeError) -> [String] {
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
    let store = repository.store
    try store.removeLeftovers(in: ".")
    for room in ["collections", "segments", "repairs"] {
      try store.removeLeftovers(in: room)
      for folder in try store.names(in: room) { try store.removeLeftovers(in: "\(room)/\(folder)") }
    }
    for collection in try repository.collections() {
      try store.removeLeftovers(in: "cache/\(collection)")
    }
  }
}
