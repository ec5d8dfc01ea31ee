import CLinux
import Glibc
package import Platform
import Synchronization

// Locks of a store in a directory: flock(2) on the object itself (held against removal) or on a file of
// its own under `locks/`.

extension DirectoryStore {
  package func hold(_ name: String) throws(StrobeError) -> any StoreLock {
    do throws(StrobeError) {
      let file = try FileDescriptor(opening: path(name), O_RDONLY)
      let lock = FileLock(file, name: name, path: nil)
      guard try lock.take(exclusive: false) else {
        throw StrobeError(.busy, "\(path(name)) is being deleted", advice: "try again")
      }
      return lock
    } catch {
      throw absent(error, name)
    }
  }

  package func removeUnlessHeld(_ name: String) throws(StrobeError) -> Bool {
    do throws(StrobeError) {
      let file = try FileDescriptor(opening: path(name), O_RDONLY)
      guard clinux_try_lock(file.number, 1) == 0 else { return false }
      try remove(name)
      return true
    } catch {
      throw absent(error, name)
    }
  }

  package func lock(_ name: String, note: String) throws(StrobeError) -> (any StoreLock)? {
    try makeDirectories(parentDirectory(path(name)))
    while true {
      let file = try FileDescriptor(opening: path(name), O_RDWR | O_CREAT)
      let lock = FileLock(file, name: name, path: path(name))
      do throws(StrobeError) {
        guard try lock.take(exclusive: true) else { return nil }
      } catch {
        // The last holder removed the name between our open and our lock.
        if error.errno == ENOENT { continue }
        throw error
      }
      try lock.write(note)
      return lock
    }
  }

  package func rename(lock: any StoreLock, to name: String) throws(StrobeError) {
    guard let lock = lock as? FileLock else { preconditionFailure("a lock of another store") }
    try lock.rename(to: path(name), name: name)
  }

  package func holder(ofLock name: String) throws(StrobeError) -> String? {
    guard let file = try? FileDescriptor(opening: path(name), O_RDONLY),
      clinux_try_lock(file.number, 0) != 0
    else { return nil }
    return readText(path(name)) ?? "another process"
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
  /// - Throws: ENOENT when the file lost its name meanwhile.
  func take(exclusive: Bool) throws(StrobeError) -> Bool {
    guard clinux_try_lock(file.number, exclusive ? 1 : 0) == 0 else {
      if errno == EWOULDBLOCK { return false }
      throw .system(errno, call: "flock", object: file.path)
    }
    guard try file.facts().links > 0 else { throw .system(ENOENT, call: "flock", object: file.path) }
    return true
  }

  func write(_ note: String) throws(StrobeError) {
    try file.truncate(to: 0)
    try unsafe Array(note.utf8).withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
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
