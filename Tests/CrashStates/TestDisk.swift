import Glibc
import Platform
import TestSupport

/// A disk in a file, and what is in it.
final class TestDisk {
  static let chunkSize = 4096

  let name: String
  let path: String
  private(set) var content: [UInt8]

  /// - Parameter size: bytes, a multiple of 512.
  init(_ name: String, _ path: String, size: Int, _ random: inout SeededGenerator)
    throws(StrobeError)
  {
    self.name = name
    self.path = path
    content = []
    for _ in 0..<(size / Self.chunkSize) { content += Self.chunk(&random) }
    content.setSize(size)
    try save()
  }

  /// Zeros, one of a few contents that come again and again, text, or noise.
  private static func chunk(_ random: inout SeededGenerator) -> [UInt8] {
    switch Int.random(in: 0..<8, using: &random) {
    case 0, 1: return [UInt8](repeating: 0, count: chunkSize)
    case 2:
      let seed = UInt64(Int.random(in: 0..<3, using: &random))
      var same = SeededGenerator(seed: seed)
      return same.bytes(chunkSize)
    case 3, 4, 5:
      let start = Int.random(in: 0..<1000, using: &random)
      return (0..<chunkSize).map { UInt8(truncatingIfNeeded: (start + $0) / 37) }
    default: return random.bytes(chunkSize)
    }
  }

  /// A few chunks, a part of one, a hole, or another size.
  func change(_ random: inout SeededGenerator) throws(StrobeError) {
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let position = Int.random(in: 0..<content.count, using: &random)
      let chunk = position / Self.chunkSize * Self.chunkSize
      switch Int.random(in: 0..<10, using: &random) {
      case 0:
        let chunks = max(1, content.count / Self.chunkSize + Int.random(in: -3...3, using: &random))
        content.setSize(chunks * Self.chunkSize + 512 * Int.random(in: 0..<8, using: &random))
      case 1: content.clear(chunk..<(chunk + 5 * Self.chunkSize))
      case 2: content[position] &+= 1
      default:
        let bytes = Self.chunk(&random)
        content.replaceSubrange(
          chunk..<min(chunk + Self.chunkSize, content.count),
          with: bytes.prefix(content.count - chunk))
      }
    }
    try save()
  }

  /// Noise, which takes as much room wherever it is stored.
  func fillStart(chunks: Int, _ random: inout SeededGenerator) throws(StrobeError) {
    let count = min(chunks * Self.chunkSize, content.count)
    content.replaceSubrange(0..<count, with: random.bytes(count))
    try save()
  }

  private func save() throws(StrobeError) {
    let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT)
    try file.truncate(to: content.count)
    try unsafe content.withBytes { (bytes) throws(StrobeError) in
      try unsafe file.write(bytes, at: 0)
    }
  }
}
