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
        if place == "/run/strobe" { try makeDirectories(place) }
        try systemCall("mkdir", path) { unsafe mkdir(path, 0o700) }
        return path
      } catch {
        failure = error
      }
    }
    throw failure ?? .system(ENOENT, call: "mkdir", object: "/tmp")
  }

  static func remove(_ path: String) {
    unsafe unlink(path + "/nbd")
    unsafe rmdir(path)
  }
}
