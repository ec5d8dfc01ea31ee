import CLinux
import Glibc
import Platform

/// A directory that only this user can enter, for a socket.
enum PrivateFolder {
  /// The directory's path is short: the path of a socket has at most 107 bytes.
  static func make() throws(StrobeError) -> String {
    var failure: StrobeError?
    for place in [
      "/run/strobe", unsafe getenv("XDG_RUNTIME_DIR").map { unsafe String(cString: $0) }, "/tmp",
    ] {
      guard let place, place.utf8.count < 64 else { continue }
      let path = "\(place)/image-\(hexadecimal(randomBytes(8)))"
      do throws(StrobeError) {
        if place == "/run/strobe" {
          try makeDirectories(place)
          sweep(place)
        }
        try systemCall("mkdir", path) { unsafe mkdir(path, 0o700) }
        return path
      } catch {
        failure = error
      }
    }
    throw failure ?? .system(ENOENT, call: "mkdir", object: "/tmp")
  }

  /// Takes what killed processes left away. A folder in use is locked (flock(2)) by whoever made it.
  static func sweep(_ place: String) {
    for name in (try? namesInDirectory(place)) ?? [] where name.hasPrefix("image-") {
      let path = "\(place)/\(name)"
      // One that was just made may not be locked yet.
      guard
        let folder = try? FileDescriptor(opening: path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
        let facts = try? folder.facts(), facts.changed_seconds < time(nil) - 60
      else { continue }
      if clinux_try_lock(folder.number, 1) == 0 { remove(path) }
    }
  }

  static func remove(_ path: String) {
    unsafe unlink(path + "/nbd")
    unsafe rmdir(path)
  }
}
