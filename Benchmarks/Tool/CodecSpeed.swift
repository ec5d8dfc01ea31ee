import BlockDevices
import ChangeDetection
import ChunkCodec
import Glibc
import Platform

/// How fast one core compresses and decompresses a file's 64 KiB chunks with LZ4, and nothing else:
/// chunks of zeros are left out, everything is in memory.
enum CodecSpeed {
  private static let chunkSize = 64 << 10
  /// Chunks that are timed together: the clock is read between batches, not between chunks.
  private static let batch = 256

  static func run(file path: String) throws {
    let file = try FileDescriptor(opening: path, O_RDONLY)
    let size = try DeviceGeometry(of: file, try file.facts()).size
    let input = AlignedBuffer(count: batch * chunkSize)
    let output = AlignedBuffer(count: batch * chunkSize)
    let back = AlignedBuffer(count: chunkSize)
    let encoder = ChunkEncoder()
    var compress = 0.0
    var decompress = 0.0
    var content = 0
    var stored = 0
    for offset in stride(from: 0, to: size, by: batch * chunkSize) {
      let count = try unsafe file.read(at: offset, into: input.bytes)
      let starts = stride(from: 0, to: count - count % chunkSize, by: chunkSize).filter {
        unsafe !isZero(UnsafeRawBufferPointer(rebasing: input.bytes[$0..<($0 + chunkSize)]))
      }
      var results: [(ChunkEncoding, Int)] = []
      compress += cpuSeconds {
        for start in starts {
          let chunk = unsafe UnsafeRawBufferPointer(
            rebasing: input.bytes[start..<(start + chunkSize)])
          results.append(unsafe encoder.encode(chunk, to: output.address + start))
        }
      }
      decompress += cpuSeconds {
        for (start, (encoding, length)) in zip(starts, results) {
          let record = unsafe UnsafeRawBufferPointer(
            rebasing: output.bytes[start..<(start + length)])
          let isWhole = unsafe decodeChunk(record, encoding: encoding, into: back.bytes)
          precondition(isWhole)
        }
      }
      content += starts.count * chunkSize
      stored += results.reduce(0) { $0 + $1.1 }
    }
    print(
      """
      {"content": \(content), "stored": \(stored), "compressSeconds": \(compress), \
      "decompressSeconds": \(decompress)}
      """)
  }

  /// CPU seconds of this thread: what other programs do to the clock on the wall doesn't count.
  private static func cpuSeconds(_ body: () -> Void) -> Double {
    func now() -> Double {
      var time = timespec()
      unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    let start = now()
    body()
    return now() - start
  }
}
