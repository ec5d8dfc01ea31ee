import Glibc
import Platform

/// A pass's own folder for images and the socket, which QEMU can use and nobody else.
///
/// Images lose their names as soon as QEMU has them open: whatever dies, their space is free again.
final class ScratchFolder {
  /// `sockaddr_un` has 108 bytes, and the last one is zero.
  private static let longestSocket = 107
  private static let socketName = "/nbd"

  let path: String
  private let socketFolder: String
  private let owner: (user: UInt32, group: UInt32)

  /// - Parameters:
  ///   - monitor: of the QEMU that is to use it.
  ///   - base: where it is made; a shorter place is taken when a socket there would have too long a name.
  init(_ names: PassNames, in base: String, for monitor: QMPConnection) throws(StrobeError) {
    let wanted = absolutePath(base) + "/" + names.stem
    socketFolder =
      wanted.utf8.count + Self.socketName.utf8.count <= Self.longestSocket
      ? wanted : "/run/" + names.stem
    path = wanted
    owner = Self.owner(of: monitor)
    for folder in Set([path, socketFolder]) {
      try systemCall("mkdir", folder) { unsafe mkdir(folder, 0o700) }
      try give(folder)
    }
  }

  var socket: String { socketFolder + Self.socketName }

  /// Bytes that others than root can still take there.
  static func freeSpace(_ path: String) throws(StrobeError) -> Int {
    var facts = statvfs()
    try systemCall("statvfs", path) { unsafe statvfs(path, &facts) }
    return Int(facts.f_bavail) * Int(facts.f_frsize)
  }

  /// Makes a file that QEMU may write.
  func makeFile(_ name: String, _ write: (borrowing FileDescriptor) throws(StrobeError) -> Void)
    throws(StrobeError) -> String
  {
    let file = path + "/" + name
    try write(try FileDescriptor(opening: file, O_RDWR | O_CREAT | O_EXCL))
    try give(file)
    return file
  }

  /// Removes it, with what is in it.
  func remove() throws(StrobeError) {
    for folder in Set([path, socketFolder]) { try Self.remove(folder) }
  }

  /// Removes the folders of passes that are over.
  ///
  /// - Parameter own: the pass that begins: an earlier one of this process may have had the name.
  static func removeLeftovers(in base: String, for own: PassNames) {
    for place in [absolutePath(base), "/run"] {
      for name in (try? namesInDirectory(place)) ?? [] {
        guard let names = PassNames(reading: name), names.stem == name,
          names == own || !LivePasses.isRunning(names)
        else { continue }
        // What can't be removed takes no space: images have no names.
        try? remove(place + "/" + name)
      }
    }
  }

  private static func remove(_ folder: String) throws(StrobeError) {
    guard try FileFacts(path: folder) != nil else { return }
    for name in try namesInDirectory(folder) { try removeFile(folder + "/" + name) }
    try systemCall("rmdir", folder) { unsafe rmdir(folder) }
  }

  private func give(_ path: String) throws(StrobeError) {
    if owner.user == geteuid() { return }
    try systemCall("chown", path) { unsafe lchown(path, owner.user, owner.group) }
  }

  /// Whom QEMU runs as. The socket knows who made it, which may have been somebody with more rights.
  private static func owner(of monitor: QMPConnection) -> (user: UInt32, group: UInt32) {
    guard let peer = monitor.peer else { return (geteuid(), getegid()) }
    let status = readText("/proc/\(peer.process)/status") ?? ""
    return (
      effective("Uid:", in: status) ?? peer.user, effective("Gid:", in: status) ?? peer.group
    )
  }

  /// Real, effective, saved, of the file system: see proc_pid_status(5).
  private static func effective(_ key: String, in status: String) -> UInt32? {
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(key) }) else {
      return nil
    }
    let fields = line.split { $0 == "\t" || $0 == " " }
    return fields.count > 2 ? UInt32(fields[2]) : nil
  }
}
