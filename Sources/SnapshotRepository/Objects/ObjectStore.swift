package import Platform

/// Where a repository keeps its objects: a directory, later also a bucket.
///
/// An object has a name of parts separated by `/`, is written once, and is seen whole or not at all.
/// `Tests/SnapshotRepositoryTests/ObjectStoreConformance.swift` is what every store must pass.
package protocol ObjectStore: Sendable {
  /// The store as its user named it, for messages.
  var location: String { get }

  /// All bytes of a small object.
  /// - Throws: `notFound` when there is none, `damaged` when it is larger than `limit`.
  func get(_ name: String, limit: Int) throws(StrobeError) -> [UInt8]

  /// Makes an object of `bytes` appear, whole and durable.
  /// - Throws: `exists` when there is one of that name and it isn't to be replaced.
  func put(_ name: String, _ bytes: [UInt8], replacing: Bool) throws(StrobeError)

  /// Opens an object for reading.
  /// - Throws: `notFound` when there is none.
  func open(_ name: String) throws(StrobeError) -> any ObjectReader

  /// Begins a new large object.
  /// - Throws: `exists` when there is one of that name.
  func create(_ name: String) throws(StrobeError) -> any ObjectWriter

  /// Makes a large object durable that a writer which died had not finished, and forgets what is cached of
  /// it, so that it is read from the medium afterwards.
  /// - Throws: `notFound` when there is none.
  func synchronize(_ name: String) throws(StrobeError)

  /// The names directly below a folder, without the folder; none when there is no such folder.
  func names(in folder: String) throws(StrobeError) -> [String]

  /// The names directly below a folder that must be there.
  /// - Throws: when it is missing or no folder: what isn't seen must not be taken for gone.
  func namesIfFolder(_ folder: String) throws(StrobeError) -> [String]

  /// Removes an object, durably; it is no error when there is none.
  func remove(_ name: String) throws(StrobeError)

  /// Holds an object against removal by ``removeUnlessHeld(_:)`` until the lock is let go.
  /// - Throws: `notFound` when there is none.
  func hold(_ name: String) throws(StrobeError) -> any StoreLock

  /// Removes an object, durably, unless somebody holds it or `check` throws.
  ///
  /// - Parameter check: called when nobody holds the object and nobody can begin to; what a holder did
  ///   before it let go is seen.
  /// - Returns: false when it is held; `check` isn't called then.
  /// - Throws: `notFound` when there is none; what `check` throws.
  func removeUnlessHeld(
    _ name: String, check: () throws(StrobeError) -> Void
  ) throws(StrobeError) -> Bool

  /// Replaces an object by `bytes`, whole and durable, unless somebody holds it. Who opened it before
  /// goes on reading what was there.
  /// - Returns: false when it is held.
  /// - Throws: `notFound` when there is none.
  func replaceUnlessHeld(_ name: String, _ bytes: [UInt8]) throws(StrobeError) -> Bool

  /// What an object takes.
  /// - Throws: `notFound` when there is none.
  func storage(of name: String) throws(StrobeError) -> ObjectStorage

  /// Gives back ranges of an object that nobody needs; they may read as zeros from now on. Nothing else
  /// of it changes, not even its size.
  /// - Parameter ranges: bytes; multiples of 4,096; the last may end beyond the object.
  /// - Returns: false when the store can't; nothing was changed then that anybody needs.
  func free(_ ranges: [Range<Int>], of name: String) throws(StrobeError) -> Bool

  /// Replaces an object by a copy that takes room for `ranges` only; the rest reads as zeros, the size
  /// stays. Whole and durable or not at all; who opened it before goes on reading what was there.
  func rewrite(_ name: String, keeping ranges: [Range<Int>]) throws(StrobeError)

  /// Takes a lock of its own name for this process alone; the lock vanishes with its holder.
  /// - Returns: nil when somebody else has it.
  func lock(_ name: String, note: String) throws(StrobeError) -> (any StoreLock)?

  /// Takes a lock that a dead holder left behind.
  /// - Returns: nil when somebody has it, and when there is none of that name.
  func takeOver(lock name: String, note: String) throws(StrobeError) -> (any StoreLock)?

  /// Gives a held lock another name.
  func rename(lock: any StoreLock, to name: String) throws(StrobeError)

  /// What the holder of a lock noted, or nil when nobody holds it.
  func holder(ofLock name: String) throws(StrobeError) -> String?

  /// Removes what writers that died left unfinished in a folder.
  func removeLeftovers(in folder: String) throws(StrobeError)
}

/// Bytes of an object, and bytes that it takes on the medium.
package struct ObjectStorage: Sendable, Equatable {
  package let size: Int
  package let allocated: Int

  package init(size: Int, allocated: Int) {
    self.size = size
    self.allocated = allocated
  }
}

/// An object that is being read; from any thread.
package protocol ObjectReader: AnyObject, Sendable {
  /// Bytes.
  var size: Int { get }
  /// Fills `buffer` from `offset`.
  /// - Throws: `damaged` when the object ends before.
  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(StrobeError)
  /// Says that a range will be read soon.
  func prefetch(_ range: Range<Int>)
}

/// An object that is being written; ranges may come from several threads in any order.
package protocol ObjectWriter: AnyObject, Sendable {
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError)
  /// Makes the object durable under its name.
  func finish() throws(StrobeError)
}

/// Something held until ``release()`` or the end of the process.
package protocol StoreLock: AnyObject, Sendable {
  var name: String { get }
  /// Lets go, and removes the name of a lock taken with ``ObjectStore/lock(_:note:)``.
  func release()
}

extension ObjectStore {
  package func removeUnlessHeld(_ name: String) throws(StrobeError) -> Bool {
    try removeUnlessHeld(name) { () throws(StrobeError) in }
  }

  package func exists(_ name: String) throws(StrobeError) -> Bool {
    do throws(StrobeError) {
      _ = try open(name)
      return true
    } catch {
      if error.reason == .notFound { return false }
      throw error
    }
  }
}
