package import Platform

// Who is writing. A pass registers before it creates its first object and unregisters after its commit.
//
//   locks/pass-<id>     a pass that has published nothing yet
//   locks/commit-<id>   a pass that may have published its restore point
//
// Both are held with a kernel lock, so that a dead pass is told from a live one. Invariants:
// - An object that no point names and whose pass is registered and alive is never removed.
// - The rename to `commit-` happens before the point can appear, so the objects of a dead `pass-` are
//   most likely unreferenced: they are removed by the next pass. But a power cut or a copy may bring an
//   old name back, so what a point names stays even then. Those of a dead `commit-` are left to `gc`.
// - Segments of a pass that has a journal stay (`PassJournal.swift`): the next pass may take them over.

package enum PassRegistration {
  private static let folder = "locks"

  package static func begin(
    _ store: any ObjectStore, _ pass: PassID, note: String
  ) throws(StrobeError) -> any StoreLock {
    guard let lock = try store.lock("\(folder)/pass-\(pass)", note: note) else {
      throw StrobeError(.busy, "pass \(pass) is registered already")
    }
    return lock
  }

  /// Says that the point may appear from now on.
  package static func beginCommit(
    _ store: any ObjectStore, _ pass: PassID, _ lock: any StoreLock
  ) throws(StrobeError) {
    try store.rename(lock: lock, to: "\(folder)/commit-\(pass)")
  }

  /// Whether the pass is alive. Asked in the order in which the names change.
  package static func isAlive(_ store: any ObjectStore, _ pass: PassID) throws(StrobeError) -> Bool
  {
    if try store.holder(ofLock: "\(folder)/pass-\(pass)") != nil { return true }
    return try store.holder(ofLock: "\(folder)/commit-\(pass)") != nil
  }

  /// Removes what passes that died before their commit left behind. What they stored stays while they
  /// have a journal.
  ///
  /// - Returns: how many objects were removed.
  @discardableResult
  package static func sweep(_ store: any ObjectStore) throws(StrobeError) -> Int {
    var dead: [(pass: PassID, lock: any StoreLock)] = []
    let cleaning = LockNote("cleaning up after a killed pass").description
    for name in try store.names(in: folder) where dead.count < sweepLimit {
      let isPass = name.hasPrefix("pass-")
      guard isPass || name.hasPrefix("commit-"),
        let pass = PassID(name.dropFirst(isPass ? 5 : 7)),
        // Taken over, never made: a pass that went on since the names were read is alive or done.
        let lock = try store.takeOver(lock: "\(folder)/\(name)", note: cleaning)
      else { continue }
      // One that is just being registered may be caught between the file's making and its lock: it has
      // no objects, and must not wait for all points to be read.
      var isWanted = isPass
      if isWanted { isWanted = try hasObjects(store, pass) }
      if isWanted { dead.append((pass, lock)) } else { lock.release() }
    }
    guard !dead.isEmpty else { return 0 }
    // Dead, then journals, then points: see `PassJournal.swift`.
    let unfinished = try UnfinishedPasses.all(store)
    // The name alone proves nothing: a power cut may bring an old name back beside a point that is
    // durable, and so may a copy of the repository that was made while it was in use.
    // Left with their registrations: the next sweep, or gc, says why.
    guard let named = try? ReferencedObjects.names(store, CancellationFlag()) else { return 0 }
    var removed = 0
    for (pass, lock) in dead {
      removed += try removeObjects(
        store, of: pass, except: named, keepingSegments: unfinished.contains(pass))
      lock.release()
    }
    return removed
  }

  private static func hasObjects(_ store: any ObjectStore, _ pass: PassID) throws(StrobeError)
    -> Bool
  {
    for folder in ["layers", "segments"] {
      let names = try store.names(in: "\(folder)/\(hexadecimal(pass.bytes[..<1]))")
      if names.contains(where: { $0.hasPrefix(pass.description) }) { return true }
    }
    return false
  }

  /// Dead passes that one sweep holds; the rest is left to the next.
  private static let sweepLimit = 256

  /// Removes the layers and segments of a pass, but for those that are `named`.
  @discardableResult
  package static func removeObjects(
    _ store: any ObjectStore, of pass: PassID, except named: Set<String> = [],
    keepingSegments: Bool = false
  ) throws(StrobeError) -> Int {
    var removed = 0
    for folder in keepingSegments ? ["layers"] : ["layers", "segments"] {
      let inner = "\(folder)/\(hexadecimal(pass.bytes[..<1]))"
      for name in try store.names(in: inner) where name.hasPrefix(pass.description) {
        guard !named.contains("\(inner)/\(name)") else { continue }
        try store.remove("\(inner)/\(name)")
        removed += 1
      }
    }
    return removed
  }
}
