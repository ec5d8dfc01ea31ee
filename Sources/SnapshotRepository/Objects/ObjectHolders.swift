import CLinux
import Glibc
package import Platform

// Who holds objects of a store in a directory: what the kernel says of its flock(2) locks. See proc_locks(5).
//
// A line names the process that took the lock and the file's inode. The device is not to be relied on: that of a
// Btrfs subvolume or an overlay is another than stat(2) tells. So the process's open files are looked at.

/// Who holds an object.
package struct ObjectHolder: Sendable, Equatable {
  /// The object's name within its folder.
  package let name: String
  /// Nil when it can't be seen: it runs elsewhere, or it left the lock to a child and ended.
  package let process: Int?
  /// Held alone, to be removed, instead of to be read.
  package let isExclusive: Bool

  package init(name: String, process: Int?, isExclusive: Bool) {
    self.name = name
    self.process = process
    self.isExclusive = isExclusive
  }
}

extension DirectoryStore {
  /// Who holds the objects directly below `folder`, each process once an object.
  package func holders(in folder: String) throws(StrobeError) -> [ObjectHolder] {
    let locks = FileLockLine.all()
    guard !locks.isEmpty else { return [] }
    var found: [ObjectHolder] = []
    let wanted = Set(locks.map(\.inode))
    for name in try names(in: folder) {
      guard let facts = try FileFacts(path: path("\(folder)/\(name)")), facts.isRegularFile,
        wanted.contains(UInt64(facts.inode))
      else { continue }
      for lock in locks where lock.inode == facts.inode && lock.isOn(facts) {
        let holder = ObjectHolder(
          name: name, process: lock.process, isExclusive: lock.isExclusive)
        if !found.contains(holder) { found.append(holder) }
      }
    }
    return found
  }
}

/// A line of `/proc/locks` about a flock(2) lock that is held.
struct FileLockLine: Equatable {
  let isExclusive: Bool
  let process: Int?
  let device: DeviceNumber
  let inode: UInt64

  static func all() -> [FileLockLine] {
    (readText("/proc/locks") ?? "").split(separator: "\n").compactMap { FileLockLine(String($0)) }
  }

  /// `7: FLOCK  ADVISORY  READ 6135 00:1b:488119 0 EOF`; nil for other locks and for those that wait (`->`).
  init?(_ line: String) {
    let words = line.split(separator: " ")
    guard words.count >= 6, words[1] == "FLOCK", words[3] == "READ" || words[3] == "WRITE",
      let process = Int(words[4])
    else { return nil }
    let file = words[5].split(separator: ":")
    guard file.count == 3, let major = Int(file[0], radix: 16),
      let minor = Int(file[1], radix: 16), let inode = UInt64(file[2])
    else { return nil }
    isExclusive = words[3] == "WRITE"
    // 0 and less: of another process namespace.
    self.process = process > 0 && (kill(pid_t(process), 0) == 0 || errno == EPERM) ? process : nil
    device = DeviceNumber(major: major, minor: minor)
    self.inode = inode
  }

  func isOn(_ facts: FileFacts) -> Bool {
    if device == facts.device { return true }
    guard let process, let files = try? namesInDirectory("/proc/\(process)/fd") else {
      return false
    }
    return files.contains { file in
      let open = (try? FileFacts(path: "/proc/\(process)/fd/\(file)")) ?? nil
      return open?.isSameFile(as: facts) == true
    }
  }
}
