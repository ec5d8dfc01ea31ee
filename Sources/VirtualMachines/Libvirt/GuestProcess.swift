import Glibc
import Platform

/// The QEMU that a domain runs in, on this machine.
package enum GuestProcess {
  /// Whether the program that a domain runs in isn't the installed one any more: what libvirt says of QEMU's
  /// version doesn't hold for it.
  ///
  /// - Parameter uuid: of the domain, as in QEMU's arguments.
  package static func isOutdated(uuid: String) -> Bool {
    let processes = (try? namesInDirectory("/proc")) ?? []
    return processes.contains { id in
      Int32(id) != nil && isQEMU("/proc/\(id)", uuid) && isReplaced("/proc/\(id)/exe")
    }
  }

  /// Tells this run of a domain from any other; nil when its QEMU can't be seen from here.
  ///
  /// - Parameter uuid: of the domain, as in QEMU's arguments.
  package static func mark(uuid: String) -> String? {
    guard let boot = readText("/proc/sys/kernel/random/boot_id"), !boot.isEmpty else { return nil }
    let found = ((try? namesInDirectory("/proc")) ?? []).compactMap(Int.init)
      .filter { isQEMU("/proc/\($0)", uuid) }
    guard found.count == 1, let mark = ProcessMark(of: found[0]) else { return nil }
    return "\(boot)-\(mark.text)"
  }

  private static func isQEMU(_ folder: String, _ uuid: String) -> Bool {
    guard let line = try? readFile(folder + "/cmdline", limit: 4 << 20) else { return false }
    let words = line.split(separator: 0)
    return words.indices.dropLast().contains {
      words[$0].elementsEqual("-uuid".utf8) && words[$0 + 1].elementsEqual(uuid.utf8)
    }
  }

  /// See proc_pid_exe(5).
  private static func isReplaced(_ link: String) -> Bool {
    var target = [UInt8](repeating: 0, count: 4096)
    let count = unsafe target.withUnsafeMutableBytes {
      unsafe readlink(link, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
    }
    guard count > 0 else { return false }
    return String(decoding: target[..<count], as: UTF8.self).hasSuffix(" (deleted)")
  }
}
