import CLinux
import Glibc
package import Platform
import Synchronization

// Locks of a store in a directory: flock(2) on the object itself (held against removal) or on a file of
// its own under `locks/`.

extension DirectoryStore {
  package func hold(_ name: String) throws(StrobeError) -> any StoreLock {
    guard let lock = try existing(name, exclusive: false) else {
      throw StrobeError(.busy, "\(path(name)) is being deleted", advice: "try again")
    }
    return lock
  }

  package func removeUnlessHeld(
    _ name: String, check: () throws(StrobeError) -> Void
  ) throws(StrobeError) -> Bool {
    guard let lock = try existing(name, exclusive: true) else { return false }
    defer { lock.release() }
    try check()
    try remove(name)
    return true
  }

  /// The lock of an object that is there, or nil when somebody else has it.
  func existing(_ name: String, exclusive: Bool) throws(StrobeError) -> (any StoreLock)? {
    while true {
      do throws(StrobeError) {
        let file = try FileDescriptor(opening: path(name), O_RDONLY)
        let lock = FileLock(file, name: name, path: nil)
        do throws(StrobeError) {
          if try lock.takePatiently(exclusive: exclusive) { return lock }
          return nil
        } catch {
          // Replaced or removed between our open and our lock.
          if error.errno == ENOENT { continue }
          throw error
        }
      } catch {
        throw absent(error, name)
      }
    }
  }

  package func lock(_ name: String, note: String) throws(StrobeError) -> (any StoreLock)? {
    try makeDirectories(parentDirectory(path(name)))
    return try take(name, note: note, flags: O_RDWR | O_CREAT)
  }

  package func takeOver(lock name: String, note: String) throws(StrobeError) -> (any StoreLock)? {
    do throws(StrobeError) {
      // Never makes the name: a holder that is done or has renamed its lock must not be taken for dead.
      return try take(name, note: note, flags: O_RDWR)
    } catch {
      if error.errno == ENOENT { return nil }
      throw error
    }
  }

  private func take(
    _ name: String, note: String, flags: Int32
  ) throws(StrobeError) -> (any StoreLock)? {
    while true {
      let file = try FileDescriptor(opening: path(name), flags)
      let lock = FileLock(file, name: name, path: path(name))
      do throws(StrobeError) {
        guard try lock.takePatiently(exclusive: true) else { return nil }
      } catch {
        // The last holder removed or renamed it between our open and our lock.
        if error.errno == ENOENT { continue }
        throw error
      }
      lock.write(note)
      return lock
    }
  }

  package func rename(lock: any StoreLock, to name: String) throws(StrobeError) {
    guard let lock = lock as? FileLock else { preconditionFailure("a lock of another store") }
    try lock.rename(to: path(name), name: name)
  }

  package func holder(ofLock name: String) throws(StrobeError) -> String? {
    let file: FileDescriptor
    do throws(StrobeError) {
      file = try FileDescriptor(opening: path(name), O_RDONLY)
    } catch {
      // Only what isn't there has surely no holder.
      if error.errno == ENOENT { return nil }
      throw error
    }
    if clinux_try_lock(file.number, 0) == 0 {
      flock(file.number, LOCK_UN)
      return nil
    }
    guard errno == EWOULDBLOCK else {
      throw .system(errno, call: "flock", object: file.path)
    }
    guard let note = readText(path(name)), !note.isEmpty else { return "another process" }
    return note
  }
}

private final class FileLock: StoreLock {
  private let file: FileDescriptor
  private let place: Mutex<(name: String, path: String?)>

  init(_ file: consuming FileDescriptor, name: String, path: String?) {
    self.file = file
    place = Mutex((name, path))
  }

  var name: String { place.withLock { $0.name } }

  /// - Returns: false when somebody else has it.
  /// - Throws: ENOENT when the file lost its name meanwhile, or another has it.
  func take(exclusive: Bool) throws(StrobeError) -> Bool {
    guard clinux_try_lock(file.number, exclusive ? 1 : 0) == 0 else {
      if errno == EWOULDBLOCK { return false }
      throw .system(errno, call: "flock", object: file.path)
    }
    let facts = try file.facts()
    guard let named = try FileFacts(path: file.path), named.isSameFile(as: facts) else {
      throw .system(ENOENT, call: "flock", object: file.path)
    }
    return true
  }

  /// Asks again for a moment: `holder(ofLock:)` has a lock while it looks, and a program that was just
  /// started holds copies of its parent's descriptors until it runs.
  func takePatiently(exclusive: Bool) throws(StrobeError) -> Bool {
    for _ in 0..<20 {
      if try take(exclusive: exclusive) { return true }
      usleep(5000)
    }
    return false
  }

  /// Says who has it. A full file system may not take that; the lock is none the worse.
  func write(_ note: String) {
    do throws(StrobeError) {
      try file.truncate(to: 0)
      try unsafe Array(note.utf8).withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: 0)
      }
    } catch {}
  }

  func rename(to path: String, name: String) throws(StrobeError) {
    let old = place.withLock { $0.path }
    guard let old else { return }
    try systemCall("rename", path) { unsafe Glibc.rename(old, path) }
    place.withLock { $0 = (name, path) }
  }

  func release() {
    place.withLock { place in
      if let path = place.path { unsafe unlink(path) }
      place.path = nil
      flock(file.number, LOCK_UN)
    }
  }
}
