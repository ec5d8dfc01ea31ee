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

/// UNIX stream sockets by their path.
enum UnixSocket {
  static func listen(_ path: String) throws(StrobeError) -> FileDescriptor {
    let file = try make(path)
    unsafe try withAddress(path) { (address, length) in unsafe bind(file.number, address, length) }
    try systemCall("listen", path) { Glibc.listen(file.number, 64) }
    return file
  }

  private static func make(_ path: String) throws(StrobeError) -> FileDescriptor {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let number = try systemCall("socket", path) { socket(AF_UNIX, type, 0) }
    return FileDescriptor(owning: number, path: path)
  }

  private static func withAddress(
    _ path: String, _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(StrobeError) {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    precondition(bytes.count < MemoryLayout.size(ofValue: address.sun_path))
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    try systemCall("bind", path) {
      unsafe withUnsafePointer(to: &address) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    }
  }
}
