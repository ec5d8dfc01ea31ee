import CLinux
package import Platform

// Journals seen from outside of a pass: which segments they protect, and when they go. The invariants are
// at the head of `PassJournal.swift`.

/// The passes that never committed and whose segments the next snapshot will look into.
package enum UnfinishedPasses {
  /// Days after which `gc` gives a journal up.
  package static let keptDays = 7

  /// All passes that have a journal: also those that run, and those that committed just now.
  ///
  /// Ask whether passes are alive before this, and read the points after it.
  package static func all(_ store: any ObjectStore) throws(StrobeError) -> Set<PassID> {
    var passes: Set<PassID> = []
    for collection in try store.names(in: JournalPlace.room) {
      for place in try JournalPlace.all(store, of: collection) where try place.exists(store) {
        passes.insert(place.pass)
      }
    }
    return passes
  }

  /// Removes journals of dead passes, so that their segments become garbage: those that are older than
  /// ``keptDays``, or all. Collections that are being written to are passed over.
  ///
  /// - Parameter dryRun: only say which.
  /// - Returns: the passes that have no journal any more.
  @discardableResult
  package static func removeJournals(
    _ repository: Repository, all: Bool, dryRun: Bool = false
  ) throws(StrobeError) -> Set<PassID> {
    let store = repository.store
    var removed: Set<PassID> = []
    for collection in try store.names(in: JournalPlace.room) {
      var places: [JournalPlace] = []
      for place in try JournalPlace.all(store, of: collection) {
        if try PassRegistration.isAlive(store, place.pass) { continue }
        var isWanted = all
        if !isWanted { isWanted = try isGivenUp(repository, place) }
        if isWanted { places.append(place) }
      }
      guard !places.isEmpty else { continue }
      if dryRun {
        removed.formUnion(places.map(\.pass))
        continue
      }
      guard
        let lock = try store.lock(
          "locks/writer-\(collection)", note: LockNote("gc", of: collection).description)
      else { continue }
      defer { lock.release() }
      for place in places {
        try repository.removeJournal(place)
        removed.insert(place.pass)
      }
    }
    return removed
  }

  /// Whether a journal is older than ``keptDays``, by what it says and by what the file system says: a
  /// clock that was wrong for a while must not cost what was stored.
  private static func isGivenUp(_ repository: Repository, _ place: JournalPlace) throws(StrobeError)
    -> Bool
  {
    let limit = Timestamp.now.nanoseconds / 1_000_000_000 - keptDays * 86_400
    let folder = "\(repository.localFolder)/\(place.folder)"
    guard let facts = try FileFacts(path: folder) else { return false }
    var newest = facts.modified_seconds
    for name in try repository.store.names(in: place.folder) {
      if let file = try FileFacts(path: "\(folder)/\(name)") {
        newest = max(newest, file.modified_seconds)
      }
    }
    guard newest < limit else { return false }
    // One that can't be read helps nobody.
    guard let record = try? JournalRecord.read(repository.store, place) else { return true }
    return record.created.nanoseconds / 1_000_000_000 < limit
  }
}
