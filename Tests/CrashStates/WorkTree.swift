import Glibc
import Platform

/// A folder that is made to hold one state after another; only what differs is written.
final class WorkTree {
  let path: String
  private var files: [String: Content] = [:]
  private var folders: Set<String> = []
  /// Whether somebody else may have changed it since.
  private var isKnown = false

  init(_ path: String) { self.path = path }

  /// Says that the folder was used by something that writes.
  func wasChanged() { isKnown = false }

  /// Makes the folder hold exactly what the image says.
  func become(_ image: DiskImage) throws(StrobeError) {
    if !isKnown { try readBack() }
    var surplus = files
    for file in image.files { surplus[file.path] = nil }
    for name in surplus.keys {
      try removeFile(path + "/" + name)
      files[name] = nil
    }
    let wanted = Set(image.folders)
    for folder in folders.subtracting(wanted).sorted(by: { $0.utf8.count > $1.utf8.count }) {
      try systemCall("rmdir", folder) { unsafe rmdir(path + "/" + folder) }
    }
    for folder in wanted.subtracting(folders).sorted(by: { $0.utf8.count < $1.utf8.count }) {
      try systemCall("mkdir", folder) { unsafe mkdir(path + "/" + folder, 0o700) }
    }
    folders = wanted
    for file in image.files where files[file.path]?.mark != file.content.mark {
      try write(file.content.bytes, path + "/" + file.path)
      files[file.path] = file.content
    }
    isKnown = true
  }

  private func readBack() throws(StrobeError) {
    if try FileFacts(path: path) == nil {
      try systemCall("mkdir", path) { unsafe mkdir(path, 0o700) }
    }
    let found = try DiskImage(reading: path)
    files = [:]
    for file in found.files { files[file.path] = file.content }
    folders = Set(found.folders)
  }

  private func write(_ bytes: [UInt8], _ path: String) throws(StrobeError) {
    // Never in place: a state must not shine through another's file.
    try removeFile(path)
    let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_EXCL)
    try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
  }
}
