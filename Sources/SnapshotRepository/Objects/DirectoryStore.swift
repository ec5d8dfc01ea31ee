import CLinux
import Glibc
package import Platform
import Synchronization

/// An object store in a directory of a local file system.
///
/// A small object is written to a temporary name, made durable, and renamed; a large one is written
/// under its final name, which nothing refers to before it is finished. Locks are flock(2)'s: they
/// vanish with the process that holds them.
package final class DirectoryStore: ObjectStore {
  package let location: String
  /// As bytes: two names that look the same are two folders.
  private let knownFolders = Mutex<Set<[UInt8]>>([])
  private static let temporaryPrefix = ".tmp-"

  /// - Parameter location: the directory's path; it need not exist yet.
  package init(_ location: String) { self.location = location }

  package func path(_ name: String) -> String { location + "/" + name }

  package func get(_ name: String, limit: Int) throws(StrobeError) -> [UInt8] {
    do throws(StrobeError) { return try readFile(path(name), limit: limit) } catch {
      throw absent(error, name)
    }
  }

  package func put(_ name: String, _ bytes: [UInt8], replacing: Bool) throws(StrobeError) {
    let folder = parentDirectory(path(name))
    try makeFolder(folder)
    var temporary = ""
    do throws(StrobeError) {
      let file = try temporaryFile(in: folder)
      temporary = file.path
      try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: 0)
      }
      try file.synchronize()
      if replacing {
        try systemCall("rename", path(name)) { unsafe Glibc.rename(temporary, path(name)) }
      } else {
        try publish(temporary, as: path(name))
      }
      // Not by closing alone: a process that is just being started may have the descriptor as well.
      flock(file.number, LOCK_UN)
    } catch {
      if !temporary.isEmpty { unsafe unlink(temporary) }
      throw taken(error, name)
    }
    try synchronizeDirectory(folder)
  }

  /// A file that is held while it is written, so that nobody takes it for a leftover. Shared, so that the
  /// object may be held from the moment on when it appears.
  func temporaryFile(in folder: String) throws(StrobeError) -> FileDescriptor {
    while true {
      let path = folder + "/" + Self.temporaryPrefix + hexadecimal(randomBytes(8))
      let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_EXCL)
      let failure = clinux_try_lock(file.number, 0) == 0 ? 0 : errno
      do throws(StrobeError) {
        guard failure == 0 || failure == EWOULDBLOCK else {
          throw .system(failure, call: "flock", object: path)
        }
        // Somebody who clears up may have been quicker than our lock.
        if failure == 0, try file.facts().links > 0 { return file }
      } catch {
        unsafe unlink(path)
        throw error
      }
      unsafe unlink(path)
    }
  }

  package func open(_ name: String) throws(StrobeError) -> any ObjectReader {
    do throws(StrobeError) { return try FileReader(path(name), name: name) } catch {
      throw absent(error, name)
    }
  }

  package func create(_ name: String) throws(StrobeError) -> any ObjectWriter {
    try makeFolder(parentDirectory(path(name)))
    do throws(StrobeError) { return try FileWriter(path(name)) } catch { throw taken(error, name) }
  }

  package func synchronize(_ name: String) throws(StrobeError) {
    do throws(StrobeError) {
      let file = try FileDescriptor(opening: path(name), O_RDWR)
      try file.synchronize()
      posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
    } catch {
      throw absent(error, name)
    }
    // The folder may be as new as the object.
    let folder = parentDirectory(path(name))
    try synchronizeDirectory(folder)
    try synchronizeDirectory(parentDirectory(folder))
  }

  package func names(in folder: String) throws(StrobeError) -> [String] {
    do throws(StrobeError) {
      return try namesInDirectory(path(folder)).filter { !$0.hasPrefix(".") }
    } catch {
      if error.errno == ENOENT || error.errno == ENOTDIR { return [] }
      throw error
    }
  }

  package func namesIfFolder(_ folder: String) throws(StrobeError) -> [String] {
    try namesInDirectory(path(folder)).filter { !$0.hasPrefix(".") }
  }

  package func remove(_ name: String) throws(StrobeError) {
    try removeFile(path(name))
    if try FileFacts(path: parentDirectory(path(name))) != nil {
      try synchronizeDirectory(parentDirectory(path(name)))
    }
  }

  package func removeLeftovers(in folder: String) throws(StrobeError) {
    guard let names = try? namesInDirectory(path(folder)) else { return }
    for name in names where name.hasPrefix(Self.temporaryPrefix) {
      let file = path(folder) + "/" + name
      guard let descriptor = try? FileDescriptor(opening: file, O_RDONLY),
        clinux_try_lock(descriptor.number, 1) == 0
      else { continue }
      try removeFile(file)
    }
  }

  private func makeFolder(_ folder: String) throws(StrobeError) {
    let key = Array(folder.utf8)
    if knownFolders.withLock({ $0.contains(key) }) { return }
    try makeDirectories(folder)
    // It may be another process that made it just now: its name must be durable before ours relies on it.
    try synchronizeDirectory(parentDirectory(folder))
    knownFolders.withLock { _ = $0.insert(key) }
  }

  func absent(_ error: StrobeError, _ name: String) -> StrobeError {
    guard error.errno == ENOENT || error.errno == ENOTDIR else { return error }
    return StrobeError(.notFound, "\(path(name)) is missing")
  }

  private func taken(_ error: StrobeError, _ name: String) -> StrobeError {
    guard error.errno == EEXIST else { return error }
    return StrobeError(.exists, "\(path(name)) exists already")
  }
}

private final class FileReader: ObjectReader {
  let size: Int
  private let name: String
  private let file: FileDescriptor

  init(_ path: String, name: String) throws(StrobeError) {
    let file = try FileDescriptor(opening: path, O_RDONLY)
    size = Int(try file.facts().size)
    self.name = name
    self.file = file
  }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(StrobeError) {
    let count = offset < 0 ? 0 : try unsafe file.read(at: offset, into: buffer)
    guard count == buffer.count else {
      throw .damaged(name, expected: "\(buffer.count) bytes at \(offset)", found: "\(count) bytes")
    }
  }

  func prefetch(_ range: Range<Int>) {
    posix_fadvise(file.number, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_WILLNEED)
  }
}

private final class FileWriter: ObjectWriter {
  private let file: FileDescriptor

  init(_ path: String) throws(StrobeError) {
    file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    try unsafe file.write(bytes, at: offset)
    // The disk starts now instead of at the end of the pass.
    _ = clinux_start_writeback(file.number, UInt64(offset), UInt64(bytes.count))
  }

  func finish() throws(StrobeError) {
    try file.synchronize()
    try synchronizeDirectory(parentDirectory(file.path))
  }
}
