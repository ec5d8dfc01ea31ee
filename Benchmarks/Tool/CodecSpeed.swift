import BlockDevices
import ChangeDetection
import ChunkCodec
import Engine
import Glibc
import Platform
import Synchronization

/// How fast all cores together compress and decompress a disk's 64 KiB chunks with LZ4, and do nothing
/// else: a sample spread over the disk, in memory, without its chunks of zeros.
///
/// All cores at once, because two cores of a rented machine may be two threads of one: LZ4 on one core,
/// times two, is a speed that no program reaches there.
enum CodecSpeed {
  private static let chunkSize = 64 << 10

  static func run(file path: String) throws {
    let input = try Sample(path)
    let (count, content) = (input.count, input.content)
    let output = SharedMemory(count * chunkSize)
    let sizes = Mutex<[Int: (ChunkEncoding, Int)]>([:])
    let cores = processorCount()
    let compress = try seconds(cores) { core in
      let encoder = ChunkEncoder()
      var results: [Int: (ChunkEncoding, Int)] = [:]
      for index in stride(from: core, to: count, by: cores) {
        let chunk = unsafe UnsafeRawBufferPointer(
          start: input.address + index * chunkSize, count: chunkSize)
        results[index] = unsafe encoder.encode(chunk, to: output.address + index * chunkSize)
      }
      sizes.withLock { $0.merge(results) { $1 } }
    }
    let stored = sizes.withLock { $0 }
    let decompress = try seconds(cores) { core in
      let back = AlignedBuffer(count: chunkSize)
      for index in stride(from: core, to: count, by: cores) {
        let (encoding, length) = stored[index]!
        let record = unsafe UnsafeRawBufferPointer(
          start: output.address + index * chunkSize, count: length)
        let isWhole = unsafe decodeChunk(record, encoding: encoding, into: back.bytes)
        precondition(isWhole)
      }
    }
    let scale = Double(content) / Double(max(count * chunkSize, 1))
    let total = Int(Double(stored.values.reduce(0) { $0 + $1.1 }) * scale)
    print(
      """
      {"content": \(content), "stored": \(total), \
      "compressWall": \(compress.wall * scale), "compressCPU": \(compress.cpu * scale), \
      "decompressWall": \(decompress.wall * scale), "decompressCPU": \(decompress.cpu * scale)}
      """)
  }

  private static func seconds(
    _ cores: Int, _ body: @escaping @Sendable (_ core: Int) -> Void
  ) throws -> (wall: Double, cpu: Double) {
    func now(_ clock: clockid_t) -> Double {
      var time = timespec()
      unsafe clock_gettime(clock, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    let (wall, cpu) = (now(CLOCK_MONOTONIC), now(CLOCK_PROCESS_CPUTIME_ID))
    try onWorkers(cores, stop: CancellationFlag()) { body($0) }
    return (now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu)
  }
}

/// Memory that several threads use, each its own part.
private final class SharedMemory: Sendable {
  private let memory: AlignedBuffer

  init(_ count: Int) { memory = AlignedBuffer(count: max(count, 1)) }

  var address: UnsafeMutableRawPointer { unsafe memory.address }
}

/// Chunks with content, evenly spread over a disk.
private struct Sample: Sendable {
  private static let chunkSize = 64 << 10
  private static let limit = (1 << 30) / chunkSize

  /// Chunks in memory.
  let count: Int
  /// Bytes of all chunks of the disk that aren't zeros.
  let content: Int
  private let memory: SharedMemory

  var address: UnsafeMutableRawPointer { unsafe memory.address }

  init(_ path: String) throws {
    let file = try FileDescriptor(opening: path, O_RDONLY)
    let total = try DeviceGeometry(of: file, try file.facts()).size / Self.chunkSize
    let buffer = AlignedBuffer(count: Self.chunkSize)
    var positions: [Int] = []
    for position in 0..<total {
      _ = try unsafe file.read(at: position * Self.chunkSize, into: buffer.bytes)
      if unsafe !isZero(UnsafeRawBufferPointer(buffer.bytes)) { positions.append(position) }
    }
    let step = max(1, (positions.count + Self.limit - 1) / Self.limit)
    let chosen = stride(from: 0, to: positions.count, by: step).map { positions[$0] }
    memory = SharedMemory(chosen.count * Self.chunkSize)
    for (index, position) in chosen.enumerated() {
      let place = unsafe UnsafeMutableRawBufferPointer(
        start: memory.address + index * Self.chunkSize, count: Self.chunkSize)
      _ = try unsafe file.read(at: position * Self.chunkSize, into: place)
    }
    count = chosen.count
    content = positions.count * Self.chunkSize
  }
}
