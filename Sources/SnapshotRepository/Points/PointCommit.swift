package import Platform

// The commit. Before: segments durable, layers durable. Then the point's document appears, whole and
// durable, or not at all; with it all disks are in the repository, or none.

extension Repository {
  /// Publishes a restore point; its layers and segments must be durable.
  package func commit(
    _ point: RestorePoint, registration: any StoreLock
  ) throws(StrobeError) {
    guard let pass = PassID(point.id) else { preconditionFailure("a point's id is a pass's") }
    try PassRegistration.beginCommit(store, pass, registration)
    try store.put(
      RestorePoint.objectName(point.collection, point.id), Document.encode(point), replacing: false)
  }

  /// Removes a restore point. Others don't change: each names its layers itself.
  ///
  /// - Throws: `busy` when it is held, `refused` when it is protected.
  package func delete(_ collection: String, _ id: String) throws(StrobeError) {
    let isRemoved = try store.removeUnlessHeld(RestorePoint.objectName(collection, id)) {
      () throws(StrobeError) in
      // Only now: who protects a point holds it, so a protection is there before our lock or never.
      try checkUnprotected(collection, id)
    }
    guard isRemoved else {
      throw StrobeError(
        .busy, "\(collection)@\(id.prefix(12)) is being read or continued by another command",
        advice: "wait for it and try again")
    }
  }

  /// Opens a restore point and holds it against deletion until the lock is let go.
  package func hold(
    _ collection: String, _ id: String
  ) throws(StrobeError) -> (point: RestorePoint, lock: any StoreLock) {
    let lock = try store.hold(RestorePoint.objectName(collection, id))
    return (try RestorePoint.read(store, collection, id), lock)
  }
}
