import Glibc
import Platform

/// UNIX stream sockets by their path. See unix(7).
enum UnixSocket {
  static func make(_ path: String) throws(StrobeError) -> FileDescriptor {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let number = try systemCall("socket", path) { socket(AF_UNIX, type, 0) }
    return FileDescriptor(owning: number, path: path)
  }

  /// A socket at a new path that others can connect to.
  static func listen(_ path: String) throws(StrobeError) -> FileDescriptor {
    let file = try make(path)
    let number = file.number
    try unsafe withAddress("bind", path) { (address, length) in
      unsafe bind(number, address, length)
    }
    try systemCall("listen", path) { Glibc.listen(number, 64) }
    return file
  }

  static func connect(_ number: Int32, to path: String) throws(StrobeError) {
    try unsafe withAddress("connect", path) { (address, length) in
      unsafe Glibc.connect(number, address, length)
    }
  }

  private static func withAddress(
    _ name: StaticString, _ path: String,
    _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(StrobeError) {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard !bytes.isEmpty, bytes.count < room, !bytes.contains(0) else {
      throw StrobeError(
        .usage, "the path of socket \(path) has \(bytes.count) bytes, more than \(room - 1)",
        advice: "name it by a shorter path, such as a symbolic link")
    }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    try systemCall(name, path) {
      unsafe withUnsafePointer(to: &address) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    }
  }
}
