import Glibc

// Files of the harness: never through the engine, and never while faults are armed.

/// The bytes of a file, or nil when there is none.
func fileContents(_ path: String) -> [UInt8]? {
  let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { return nil }
  defer { close(file) }
  var status = stat()
  guard unsafe fstat(file, &status) == 0 else { return nil }
  let size = Int(status.st_size)
  var bytes = [UInt8](repeating: 0, count: size)
  guard unsafe pread(file, &bytes, size, 0) == size else { return nil }
  return bytes
}

/// Puts bytes into a file, whatever was there.
func overwriteFile(_ path: String, _ bytes: [UInt8]) {
  let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
  precondition(file >= 0, "\(path): \(errno)")
  defer { close(file) }
  precondition(unsafe write(file, bytes, bytes.count) == bytes.count, "\(path): \(errno)")
}

/// Sets when a file or folder was changed last.
func setChanged(_ path: String, nanoseconds: Int) {
  let time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: 0)
  unsafe utimensat(AT_FDCWD, path, [time, time], 0)
}

func unlinkFile(_ path: String) { unsafe unlink(path) }

func fileExists(_ path: String) -> Bool {
  var status = stat()
  return unsafe lstat(path, &status) == 0
}

private func isFolder(_ path: String) -> Bool {
  var status = stat()
  return unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// The names in a folder, in order; none when there is no such folder.
func namesInFolder(_ path: String) -> [String] {
  guard let folder = unsafe opendir(path) else { return [] }
  defer { unsafe closedir(folder) }
  var names: [String] = []
  while let entry = unsafe readdir(folder) {
    let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
      unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// All files below a folder, as paths relative to it, in order.
func filesBelow(_ root: String, _ folder: String = "") -> [String] {
  var found: [String] = []
  for name in namesInFolder(folder.isEmpty ? root : root + "/" + folder) {
    let path = folder.isEmpty ? name : folder + "/" + name
    if isFolder(root + "/" + path) {
      found += filesBelow(root, path)
    } else {
      found.append(path)
    }
  }
  return found
}

/// Removes a folder of the simulation with everything in it.
func removeTree(_ path: String) {
  precondition(path.hasPrefix(World.base))
  for file in filesBelow(path) { unsafe unlink(path + "/" + file) }
  removeFolders(path)
}

private func removeFolders(_ path: String) {
  for name in namesInFolder(path) { removeFolders(path + "/" + name) }
  unsafe rmdir(path)
}
