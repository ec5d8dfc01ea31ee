import CLinux
import Glibc

// Whole files and directories by path: what the repository and sysfs readers need, without Foundation.

/// Everything in a file of at most `limit` bytes.
package func readFile(_ path: String, limit: Int = 64 << 20) throws(StrobeError) -> [UInt8] {
  let file = try FileDescriptor(opening: path, O_RDONLY)
  let size = Int(try file.facts().size)
  guard size <= limit else {
    throw .damaged(path, expected: "at most \(limit) bytes", found: "\(size) bytes")
  }
  // Files of sysfs and procfs have size 0 or 4096 whatever they hold: read until the end.
  var bytes = [UInt8](repeating: 0, count: max(size + 1, 4096))
  var count = 0
  while true {
    let room = bytes.count
    let got = try unsafe bytes.withMutableBytes { (buffer) throws(StrobeError) in
      try unsafe file.read(
        at: count, into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
    }
    count += got
    if count < room { break }
    guard count <= limit else {
      throw .damaged(path, expected: "at most \(limit) bytes", found: "more")
    }
    bytes.append(contentsOf: repeatElement(0, count: room))
  }
  bytes.removeLast(bytes.count - count)
  return bytes
}

/// The text of a small file without white space at its end, or nil when it can't be read.
package func readText(_ path: String) -> String? {
  guard let bytes = try? readFile(path, limit: 16 << 20) else { return nil }
  var text = String(decoding: bytes, as: UTF8.self)
  while let last = text.last, last.isWhitespace { text.removeLast() }
  return text
}

/// The names in a directory, without `.` and `..`, in no order.
package func namesInDirectory(_ path: String) throws(StrobeError) -> [String] {
  guard let directory = unsafe opendir(path) else {
    throw .system(errno, call: "opendir", object: path)
  }
  defer { unsafe closedir(directory) }
  var names: [String] = []
  while true {
    errno = 0
    guard let entry = unsafe readdir(directory) else {
      if errno != 0 { throw .system(errno, call: "readdir", object: path) }
      return names
    }
    let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
      unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
}

/// The path with all symbolic links followed, or nil when it leads nowhere.
package func resolvedPath(_ path: String) -> String? {
  guard let resolved = unsafe realpath(path, nil) else { return nil }
  defer { unsafe free(resolved) }
  return unsafe String(cString: resolved)
}

/// `path` made absolute without touching the file system's links.
package func absolutePath(_ path: String) -> String {
  if path.hasPrefix("/") { return path }
  guard let directory = unsafe getcwd(nil, 0) else { return path }
  defer { unsafe free(directory) }
  return unsafe String(cString: directory) + "/" + path
}

/// Everything before the last slash, or `.`.
package func parentDirectory(_ path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

/// Everything after the last slash.
package func lastComponent(_ path: String) -> String {
  path.split(separator: "/").last.map(String.init) ?? path
}

/// Makes the names in a directory durable. See fsync(2).
package func synchronizeDirectory(_ path: String) throws(StrobeError) {
  let directory = try FileDescriptor(opening: path, O_RDONLY | O_DIRECTORY)
  try directory.synchronize()
}

/// Makes a directory and those above it that are missing, and makes their names durable.
package func makeDirectories(_ path: String, mode: UInt32 = 0o700) throws(StrobeError) {
  if let facts = try FileFacts(path: path) {
    if facts.isDirectory { return }
    throw .system(ENOTDIR, call: "mkdir", object: path)
  }
  let parent = parentDirectory(path)
  if parent != path { try makeDirectories(parent, mode: mode) }
  if unsafe mkdir(path, mode) != 0 && errno != EEXIST {
    throw .system(errno, call: "mkdir", object: path)
  }
  try synchronizeDirectory(parent)
}

/// Removes a name; it is no error when it is gone already.
package func removeFile(_ path: String) throws(StrobeError) {
  if unsafe unlink(path) != 0 && errno != ENOENT {
    throw .system(errno, call: "unlink", object: path)
  }
}

/// Gives a file its final name, which must be free. See renameat2(2), link(2).
package func publish(_ temporary: String, as path: String) throws(StrobeError) {
  if unsafe clinux_rename_new(temporary, path) == 0 { return }
  guard errno == EINVAL || errno == ENOSYS || errno == ENOTTY else {
    throw .system(errno, call: "rename", object: path)
  }
  try systemCall("link", path) { unsafe link(temporary, path) }
  try removeFile(temporary)
}

/// How many processors this process may use.
package func processorCount() -> Int {
  max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}
