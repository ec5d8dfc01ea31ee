import CLinux
import Glibc
package import Platform

/// The mark of a freeze, outside the file system or guest that is frozen: a small file that says what is frozen, and
/// a lock (flock(2)) on it that lives as long as the engine or the guardian.
///
/// ```
/// strobe-freeze 1
/// boot <boot id>
/// process <pid of the engine>
/// mount <mount point, to the end of the file>
/// ```
/// Of a guest the last line is `agent <path of its agent's socket>` or `processors <path of its monitor's socket>`.
///
/// Invariants:
/// - R1 Whoever freezes a file system or guest holds the lock of its record first. So two passes never freeze
///   one at once, and each thaws its own freeze only.
/// - R2 The name is removed only under the lock, and only if it leads to the file that is locked. Who gets
///   the lock of a file that has lost its name tries again.
/// - R3 The last line is written when the guardian is ready and before the first freeze. So a record
///   without it says that nothing was frozen, and a whole one whose lock is free is what an outage of
///   engine and guardian together left.
package final class FreezeRecord: Sendable {
  /// Where root leaves them; another user, who can hold guests only, has a runtime directory of its own.
  package static let defaultFolder: String = {
    guard geteuid() != 0, let own = unsafe getenv("XDG_RUNTIME_DIR") else {
      return "/run/strobe/frozen"
    }
    return unsafe String(cString: own) + "/strobe/frozen"
  }()

  let path: String
  let file: FileDescriptor
  /// Whether an earlier session left it: the file system or guest may be frozen by that.
  let isStale: Bool

  /// - Parameter deadline: CLOCK_MONOTONIC, nanoseconds; until then another holder is waited for.
  /// - Throws: `busy` when another pass holds the target for longer.
  init(
    of target: FreezeTarget, in folder: String, until deadline: Int64, stop: CancellationFlag
  ) throws(StrobeError) {
    path = target.recordPath(in: folder)
    while true {
      let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT, mode: 0o600)
      if clinux_try_lock(file.number, 1) == 0 {
        guard Self.leads(path, to: file.number) else { continue }
        self.file = file
        break
      }
      guard errno == EWOULDBLOCK || errno == EINTR else {
        throw .system(errno, call: "flock", object: path)
      }
      guard Clock.now() < deadline else {
        throw StrobeError(
          .busy, "\(target.title) is being frozen by \(Self.holder(path))",
          advice: "wait until it is done, then run this again")
      }
      try stop.check()
      usleep(10_000)
    }
    // A record of another boot says nothing of this one.
    isStale = FreezeRecordContent(reading: path)?.isOfThisBoot == true
    if !isStale {
      try file.truncate(to: 0)
      _ = try write(FreezeRecordContent(.mount, place: "").claim, at: 0)
    }
  }

  /// Says that the target may be frozen from now on (R3).
  func arm(_ target: FreezeTarget) throws(StrobeError) {
    // Also that of a stale one: the mount point and the process may be others by now.
    let content = FreezeRecordContent(target.recordKind, place: target.name)
    try file.truncate(to: try write(content.text, at: 0))
  }

  package static func path(of device: DeviceNumber, in folder: String) -> String {
    "\(folder)/\(device.major)-\(device.minor)"
  }

  /// - Parameter name: the path of a socket, however it is written, or `domain@URI` of libvirt.
  package static func path(ofGuest name: String, in folder: String) -> String {
    let bytes = Array((name.contains("://") ? name : resolved(socket: name)).utf8)
    let hash = unsafe bytes.withUnsafeBytes { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
    let digits = String(hash, radix: 16)
    return "\(folder)/\(guestPrefix)\(String(repeating: "0", count: 16 - digits.count))\(digits)"
  }

  private static func resolved(socket path: String) -> String {
    let whole = absolutePath(path)
    let parent = parentDirectory(whole)
    // A socket that is gone has a folder still.
    return resolvedPath(whole) ?? "\(resolvedPath(parent) ?? parent)/\(lastComponent(whole))"
  }

  static let guestPrefix = "guest-"

  private func write(_ text: String, at offset: Int) throws(StrobeError) -> Int {
    let bytes = Array(text.utf8)
    try unsafe bytes.withBytes { (memory) throws(StrobeError) in
      try unsafe file.write(memory, at: offset)
    }
    return offset + bytes.count
  }

  /// Who made a record.
  static func holder(_ path: String) -> String {
    let line = (readText(path) ?? "").split(separator: "\n").first { $0.hasPrefix("process ") }
    return line.map(String.init) ?? "another process"
  }

  func remove() { Self.remove(path, lockedBy: file.number) }

  /// Removes a record while its lock is held (R2); one that can't be removed is harmless: its lock is free.
  static func remove(_ path: String, lockedBy descriptor: Int32) {
    if leads(path, to: descriptor) { _ = unsafe unlink(path) }
  }

  static func leads(_ path: String, to descriptor: Int32) -> Bool {
    var named = stat()
    var opened = stat()
    return unsafe stat(path, &named) == 0 && fstat(descriptor, &opened) == 0
      && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev
  }
}

/// What stands in a record.
struct FreezeRecordContent {
  let boot: String
  let process: Int
  let kind: HoldKind
  /// The mount point, or the path of the socket.
  let place: String

  private static let head = "strobe-freeze 1\n"

  init(_ kind: HoldKind, place: String) {
    boot = Self.thisBoot
    process = Int(getpid())
    self.kind = kind
    self.place = place
  }

  /// - Returns: nil when there is no complete record: it was being written when the process died, or nothing was frozen yet.
  init?(reading path: String) {
    guard let bytes = try? readFile(path, limit: 1 << 16) else { return nil }
    let lines = bytes.split(separator: UInt8(ascii: "\n"), maxSplits: 3).map {
      String(decoding: $0, as: UTF8.self)
    }
    guard lines.count == 4, lines[0] + "\n" == Self.head, lines[1].hasPrefix("boot "),
      lines[2].hasPrefix("process "), let process = Int(lines[2].dropFirst(8)),
      lines[3].utf8.last == UInt8(ascii: "\n"),
      let blank = lines[3].utf8.firstIndex(of: UInt8(ascii: " "))
    else { return nil }
    boot = String(lines[1].dropFirst(5))
    self.process = process
    // By bytes: as characters, a carriage return that ends the path would be part of the line end.
    let rest = lines[3].utf8[blank...].dropFirst().dropLast()
    place = String(decoding: rest, as: UTF8.self)
    guard let kind = HoldKind(word: lines[3][..<blank], place: place) else { return nil }
    self.kind = kind
  }

  /// What it begins with when nothing is frozen yet.
  var claim: String { "\(Self.head)boot \(boot)\nprocess \(process)\n" }

  var text: String { "\(claim)\(kind.word) \(place)\n" }

  var isOfThisBoot: Bool { boot == Self.thisBoot }

  private static var thisBoot: String { readText("/proc/sys/kernel/random/boot_id") ?? "" }
}
