import CLinux
import Glibc
import Platform

/// A pass's own directory, in which the hypervisor makes its scratch images and its socket.
///
/// It is `<scratch>/strobe-<collection>-<point>`, belongs to the user that QEMU runs as, and is removed with the
/// pass; by its name the next pass of the collection knows what a killed one left.
struct LibvirtScratch: Sendable {
  /// Digits of the point in its name: sockets have short paths.
  private static let pointDigits = 8

  let path: String
  var socket: String { path + "/socket" }

  func image(of disk: String) -> String {
    // No disk's name has a slash, but a domain's author may try.
    path + "/" + disk.map { $0 == "/" ? "_" : "\($0)" }.joined() + ".qcow2"
  }

  /// Who QEMU runs as.
  struct Owner: Equatable {
    let user: UInt32
    let group: UInt32
  }

  /// - Throws: `refused` when QEMU can't get there, `usage` when the path is too long for a socket.
  init(_ request: GuestPassRequest, owner: Owner) throws(StrobeError) {
    let parent = absolutePath(request.scratchFolder)
    path = "\(parent)/\(request.prefix)\(request.point.prefix(Self.pointDigits))"
    let limit = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1
    guard socket.utf8.count <= limit else {
      throw StrobeError(
        .usage, "the scratch folder \(parent) has a path too long for a socket in it",
        advice: "name another one with --scratch; its path may have "
          + "\(parent.utf8.count - (socket.utf8.count - limit)) bytes")
    }
    try Self.checkWay(to: parent, owner)
    try Self.make(path, owner)
  }

  private static func make(_ path: String, _ owner: Owner) throws(StrobeError) {
    try systemCall("mkdir", path) { unsafe mkdir(path, 0o700) }
    if owner.user == geteuid() { return }
    if unsafe lchown(path, owner.user, owner.group) == 0 { return }
    let code = errno
    unsafe rmdir(path)
    throw StrobeError.system(code, call: "lchown", object: path).explained(
      "QEMU runs as user \(owner.user), and a folder can't be given to it", advice: "run it as root"
    )
  }

  /// Whether QEMU can go to a directory.
  private static func checkWay(to folder: String, _ owner: Owner) throws(StrobeError) {
    guard let resolved = resolvedPath(folder), let facts = try FileFacts(path: resolved),
      facts.isDirectory
    else { throw StrobeError(.notFound, "there is no scratch folder \(folder)") }
    if owner.user == 0 { return }
    var place = resolved
    while true {
      if let facts = try FileFacts(path: place), !mayEnter(facts, owner) {
        throw StrobeError(
          .refused, "QEMU runs as user \(owner.user), which can't enter \(place)",
          advice: "name a scratch folder that it can go to, such as --scratch "
            + "/var/lib/libvirt/images")
      }
      if place == "/" { return }
      place = parentDirectory(place)
    }
  }

  private static func mayEnter(_ facts: FileFacts, _ owner: Owner) -> Bool {
    if facts.owner == owner.user { return facts.mode & UInt32(S_IXUSR) != 0 }
    if facts.group == owner.group { return facts.mode & UInt32(S_IXGRP) != 0 }
    return facts.mode & UInt32(S_IXOTH) != 0
  }

  /// Bytes that may be written there now.
  func freeSpace() throws(StrobeError) -> Int {
    var facts = statvfs()
    try systemCall("statvfs", path) { unsafe statvfs(path, &facts) }
    return Int(clamping: facts.f_bavail) * Int(clamping: facts.f_frsize)
  }

  /// What an image of a disk may grow to: all of it, and qcow2's tables (10 bytes for each 64 KiB, rounded up).
  static func space(for size: Int) -> Int { size + size / 4096 + (1 << 20) }

  /// Removes it with all that is left in it.
  func remove() throws(StrobeError) { try Self.remove(path) }

  /// Removes what killed passes of the collection left in a scratch folder. When none of their jobs runs.
  static func removeLeftovers(in folder: String, prefix: String) throws(StrobeError) {
    guard let names = try? namesInDirectory(folder) else { return }
    for name in names where name.hasPrefix(prefix) { try remove("\(folder)/\(name)") }
  }

  private static func remove(_ path: String) throws(StrobeError) {
    // Not what a symbolic link of that name leads to.
    var facts = stat()
    guard unsafe lstat(path, &facts) == 0, facts.st_mode & S_IFMT == S_IFDIR else { return }
    for name in try namesInDirectory(path) { try removeFile("\(path)/\(name)") }
    if unsafe rmdir(path) != 0 && errno != ENOENT {
      throw .system(errno, call: "rmdir", object: path)
    }
  }
}
