import ChangeDetection
import TestSupport

/// What a disk should hold, kept as plainly as possible: for each chunk that isn't zeros a seed.
struct ModelDisk: Equatable {
  static let chunkSize = 4096

  /// Bytes.
  private(set) var size: Int
  private var seeds: [Int: UInt64] = [:]

  init(size: Int, _ seeds: [Int: UInt64] = [:]) {
    self.size = size
    self.seeds = seeds.filter {
      $0.key < ChunkGeometry(diskSize: size, chunkSize: Self.chunkSize).chunkCount
    }
  }

  var geometry: ChunkGeometry { ChunkGeometry(diskSize: size, chunkSize: Self.chunkSize) }

  /// Gives the chunk at `position` other content; nil: zeros.
  mutating func set(_ position: Int, _ seed: UInt64?) {
    precondition(position < geometry.chunkCount)
    seeds[position] = seed
  }

  /// A disk that shrinks forgets what was beyond its end.
  mutating func resize(to size: Int) {
    self.size = size
    let count = geometry.chunkCount
    seeds = seeds.filter { $0.key < count }
  }

  /// Even seeds compress well, odd ones don't; nil: zeros.
  func content(of position: Int) -> [UInt8]? {
    guard let seed = seeds[position] else { return nil }
    let length = geometry.length(of: position)
    if seed % 2 == 0 {
      return [UInt8](repeating: UInt8(truncatingIfNeeded: seed) | 1, count: length)
    }
    var generator = SeededGenerator(seed: seed)
    return generator.bytes(length)
  }

  /// All bytes of the disk.
  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(size)
    for position in 0..<geometry.chunkCount {
      bytes += content(of: position) ?? [UInt8](repeating: 0, count: geometry.length(of: position))
    }
    return bytes
  }
}
