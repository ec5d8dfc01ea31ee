import CLinux
import Glibc
import Platform

/// Keeps two passes from one guest, whatever monitors and repositories they come through.
///
/// QEMU's one NBD server comes too late in a pass for that: another one that clears up what it takes for leftovers in between
/// takes the filters from under this one's cut, and QEMU 7.2 ended with a failed assertion then.
///
/// A file that is held with an exclusive flock(2), which vanishes with the process. It doesn't reach into other containers.
final class GuestLock: Sendable {
  private let file: FileDescriptor

  /// - Throws: `busy` when another pass has it.
  init(of monitor: QMPConnection, uuid: String?) throws(StrobeError) {
    let path = "\(try Self.folder())/guest-\(Self.key(monitor, uuid)).lock"
    for _ in 0..<1000 {
      let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_NOFOLLOW)
      guard file.lockPatiently() else {
        guard errno == EWOULDBLOCK else { throw .system(errno, call: "flock", object: path) }
        let holder = readText(path).flatMap { $0.isEmpty ? nil : "process \($0)" }
        throw StrobeError(
          .busy, "\(holder ?? "another process") reads the guest at \(monitor.path)",
          advice: "wait until it has ended")
      }
      // Its last holder removed it between our open and our lock.
      guard let named = try FileFacts(path: path), named.isSameFile(as: try file.facts()) else {
        continue
      }
      // For the message only.
      try? file.truncate(to: 0)
      _ = try? unsafe Array("\(getpid())".utf8).withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: 0)
      }
      self.file = file
      return
    }
    throw StrobeError(.busy, "\(path) is replaced all the time", advice: "try again")
  }

  deinit { unsafe unlink(file.path) }

  /// Whom nobody gave a UUID is known by its process, or by the socket.
  private static func key(_ monitor: QMPConnection, _ uuid: String?) -> String {
    if let uuid, uuid.utf8.count == 36, uuid.allSatisfy({ $0.isHexDigit || $0 == "-" }) {
      return uuid
    }
    if let process = monitor.peer?.process, let mark = ProcessMark(of: Int(process)) {
      return mark.text
    }
    guard let facts = try? FileFacts(path: monitor.path) else { return "unknown" }
    return "socket-\(facts.device_major).\(facts.device_minor)-\(facts.inode)"
  }

  /// Nobody else can make or remove files there.
  private static func folder() throws(StrobeError) -> String {
    if geteuid() == 0 {
      try makeDirectories("/run/strobe")
      return "/run/strobe"
    }
    if let place = unsafe getenv("XDG_RUNTIME_DIR").map({ unsafe String(cString: $0) }),
      try FileFacts(path: place)?.isDirectory == true
    {
      return place
    }
    let path = "/tmp/strobe-\(geteuid())"
    try makeDirectories(path)
    let folder = try FileDescriptor(opening: path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    guard try folder.facts().owner == geteuid() else {
      throw StrobeError(.refused, "\(path) is somebody else's", advice: "set XDG_RUNTIME_DIR")
    }
    return path
  }
}
