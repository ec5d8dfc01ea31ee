import Glibc
import Platform
import SnapshotRepository

/// What is in a file at one moment; never changes, so that states share it.
final class Content: Sendable {
  let bytes: [UInt8]
  /// Tells contents apart: equal contents have equal marks.
  let mark: UInt64

  static let empty = Content([])

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    mark = checksum64(bytes) &+ UInt64(bytes.count)
  }
}

/// One step of mixing numbers into a mark or a seed. Source: https://prng.di.unimi.it/splitmix64.c
func mixed(_ values: UInt64...) -> UInt64 {
  var sum: UInt64 = 0
  for value in values {
    sum = (sum ^ value) &+ 0x9E37_79B9_7F4A_7C15
    sum = (sum ^ (sum >> 30)) &* 0xBF58_476D_1CE4_E5B9
    sum = (sum ^ (sum >> 27)) &* 0x94D0_49BB_1331_11EB
    sum ^= sum >> 31
  }
  return sum
}

/// The file system's whole tree as a crash leaves it: what is found at the next start.
struct DiskImage {
  var files: [(path: String, content: Content)] = []
  /// Without the root, parents before what is in them.
  var folders: [String] = []

  /// Equal for equal trees.
  var mark: UInt64 {
    var sum: UInt64 = 0
    for file in files { sum &+= mixed(checksum64(Array(file.path.utf8)), file.content.mark) }
    for folder in folders { sum &+= mixed(checksum64(Array(folder.utf8)), 1) }
    return sum
  }

  /// Reads the tree below a folder.
  init(reading folder: String) throws(StrobeError) { try read(folder, "") }

  init() {}

  private mutating func read(_ folder: String, _ below: String) throws(StrobeError) {
    for name in try namesInDirectory(folder).sorted() {
      let path = below.isEmpty ? name : below + "/" + name
      guard let facts = try FileFacts(path: folder + "/" + name) else { continue }
      if facts.isDirectory {
        folders.append(path)
        try read(folder + "/" + name, path)
      } else {
        files.append((path, Content(try readFile(folder + "/" + name))))
      }
    }
  }
}
