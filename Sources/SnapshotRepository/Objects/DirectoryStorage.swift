import CLinux
import Glibc
package import Platform

// What objects take on the medium, and how parts of them are given back.

extension DirectoryStore {
  package func storage(of name: String) throws(StrobeError) -> ObjectStorage {
    guard let facts = try FileFacts(path: path(name)) else {
      throw StrobeError(.notFound, "\(path(name)) is missing")
    }
    return ObjectStorage(size: Int(facts.size), allocated: Int(facts.blocks512) * 512)
  }

  package func free(_ ranges: [Range<Int>], of name: String) throws(StrobeError) -> Bool {
    let file = try openForFreeing(name)
    // Another name of it may belong to a copy of the repository that needs what this one doesn't.
    if try file.facts().links > 1 { return false }
    for range in ranges where !range.isEmpty {
      var failure = EINTR
      while failure == EINTR {
        let result = clinux_punch_hole(
          file.number, UInt64(range.lowerBound), UInt64(range.count))
        failure = result == 0 ? 0 : errno
      }
      if failure == EOPNOTSUPP || failure == ENOSYS { return false }
      guard failure == 0 else { throw .system(failure, call: "fallocate", object: file.path) }
    }
    return true
  }

  private func openForFreeing(_ name: String) throws(StrobeError) -> FileDescriptor {
    do throws(StrobeError) { return try FileDescriptor(opening: path(name), O_RDWR) } catch {
      throw absent(error, name)
    }
  }

  package func rewrite(_ name: String, keeping ranges: [Range<Int>]) throws(StrobeError) {
    let folder = parentDirectory(path(name))
    let old = try FileDescriptor(opening: path(name), O_RDONLY)
    let copy = try temporaryFile(in: folder)
    do throws(StrobeError) {
      let buffer = AlignedBuffer(count: 1 << 20)
      for range in ranges {
        for start in stride(from: range.lowerBound, to: range.upperBound, by: buffer.count) {
          let part = unsafe UnsafeMutableRawBufferPointer(
            rebasing: buffer.bytes[..<min(buffer.count, range.upperBound - start)])
          guard try unsafe old.read(at: start, into: part) == part.count else {
            throw .damaged(name, expected: "\(part.count) bytes at \(start)", found: "fewer")
          }
          try unsafe copy.write(UnsafeRawBufferPointer(part), at: start)
        }
      }
      try copy.truncate(to: Int(old.facts().size))
      try copy.synchronize()
      try systemCall("rename", path(name)) { unsafe Glibc.rename(copy.path, path(name)) }
      flock(copy.number, LOCK_UN)
    } catch {
      unsafe unlink(copy.path)
      throw error
    }
    try synchronizeDirectory(folder)
  }

  package func replaceUnlessHeld(_ name: String, _ bytes: [UInt8]) throws(StrobeError) -> Bool {
    let folder = parentDirectory(path(name))
    let file = try temporaryFile(in: folder)
    do throws(StrobeError) {
      try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: 0)
      }
      try file.synchronize()
      // Only for the rename: who wants to hold it now waits that long.
      guard let lock = try existing(name, exclusive: true) else {
        unsafe unlink(file.path)
        return false
      }
      defer { lock.release() }
      try systemCall("rename", path(name)) { unsafe Glibc.rename(file.path, path(name)) }
      flock(file.number, LOCK_UN)
    } catch {
      unsafe unlink(file.path)
      throw error
    }
    try synchronizeDirectory(folder)
    return true
  }
}
