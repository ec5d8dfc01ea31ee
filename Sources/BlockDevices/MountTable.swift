import Glibc
package import Platform

/// One line of `/proc/self/mountinfo`. See proc(5).
package struct Mount: Sendable, Equatable {
  /// Tells this mount from others of the same file system; an opened file names it in its fdinfo.
  package let id: Int
  /// The number of the file system itself (its superblock): the device's, or an anonymous one with
  /// major 0, as Btrfs has. On Btrfs, statx(2) shows other numbers, one for each subvolume.
  package let device: DeviceNumber
  package let mountPoint: String
  package let fileSystem: String
  /// What was mounted: usually a device's path.
  package let source: String
  /// Whether the file system itself takes writes, whatever this mount of it allows.
  package let isWritable: Bool
  /// Of an overlay, the folder that takes the writes, as it was named when it was mounted.
  package var upperDirectory: String?
}

package enum MountTable {
  /// All mounts of this process's namespace.
  package static func read() throws(StrobeError) -> [Mount] {
    let bytes = try readFile("/proc/self/mountinfo")
    return parse(String(decoding: bytes, as: UTF8.self))
  }

  /// The mount through which a file was opened, whatever path led to it. See proc(5), fdinfo.
  ///
  /// - Parameter table: read after the file was opened.
  /// - Returns: nil when the mount is in another namespace or was detached.
  package static func mount(of file: borrowing FileDescriptor, in table: [Mount]) -> Mount? {
    let lines = (readText("/proc/self/fdinfo/\(file.number)") ?? "").split(separator: "\n")
    guard let line = lines.first(where: { $0.hasPrefix("mnt_id:") }),
      let id = line.split(whereSeparator: \.isWhitespace).last.flatMap({ Int($0) })
    else { return nil }
    return table.first { $0.id == id }
  }

  package static func parse(_ text: String) -> [Mount] {
    // By bytes: as characters, some letters swallow the blank or line end beside them.
    text.utf8.split(separator: UInt8(ascii: "\n")).compactMap { line in
      let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        .map { Substring($0) }
      guard fields.count >= 10, let dash = fields[6...].firstIndex(of: "-"), fields.count > dash + 3
      else { return nil }
      let numbers = fields[2].split(separator: ":").compactMap { Int($0) }
      guard numbers.count == 2, let id = Int(fields[0]) else { return nil }
      return Mount(
        id: id, device: DeviceNumber(major: numbers[0], minor: numbers[1]),
        mountPoint: unescaped(fields[4]), fileSystem: String(fields[dash + 1]),
        source: unescaped(fields[dash + 2]),
        isWritable: fields[dash + 3].split(separator: ",").contains("rw"),
        upperDirectory: upperDirectory(fields[dash + 3]))
    }
  }

  private static func upperDirectory(_ options: Substring) -> String? {
    options.split(separator: ",").first { $0.hasPrefix("upperdir=") }.map {
      unescaped($0.dropFirst("upperdir=".count))
    }
  }

  /// Blanks and backslashes are written as three octal digits.
  private static func unescaped(_ field: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(field.utf8)[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3).map { Int($0) - 48 }
      if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ 0..<8 ~= $0 }) {
        bytes.append(UInt8(truncatingIfNeeded: digits[0] * 64 + digits[1] * 8 + digits[2]))
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
