import CLZ4
import Platform

/// How a chunk's content is stored. The raw value is what is written on disk.
package enum ChunkEncoding: UInt8, Sendable {
  case raw = 0
  case lz4 = 1
}

/// Compresses chunks one after another with one LZ4 state; one a worker.
package struct ChunkEncoder: ~Copyable {
  private let state: AlignedBuffer

  package init() { state = AlignedBuffer(count: Int(LZ4_sizeofState())) }

  /// Writes `content` compressed to `destination`, or as it is when that isn't smaller.
  ///
  /// - Parameter destination: room for at least `content.count` bytes.
  /// - Returns: how it is stored, and in how many bytes: at most `content.count`.
  package func encode(
    _ content: UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer
  ) -> (encoding: ChunkEncoding, count: Int) {
    // A limit one below the content's size makes LZ4 give up early on what doesn't shrink.
    let count = unsafe LZ4_compress_fast_extState(
      state.address, content.baseAddress!.assumingMemoryBound(to: CChar.self),
      destination.assumingMemoryBound(to: CChar.self), Int32(content.count),
      Int32(content.count - 1), 1)
    if count > 0 { return (.lz4, Int(count)) }
    unsafe destination.copyMemory(from: content.baseAddress!, byteCount: content.count)
    return (.raw, content.count)
  }
}

/// Decompresses `stored` into `content`.
///
/// - Returns: false when it isn't exactly `content.count` bytes of content; never writes beyond it.
package func decodeChunk(
  _ stored: UnsafeRawBufferPointer, encoding: ChunkEncoding,
  into content: UnsafeMutableRawBufferPointer
) -> Bool {
  switch encoding {
  case .raw:
    guard stored.count == content.count else { return false }
    unsafe content.copyMemory(from: stored)
    return true
  case .lz4:
    guard let source = stored.baseAddress, let destination = content.baseAddress else {
      return false
    }
    let count = unsafe LZ4_decompress_safe(
      source.assumingMemoryBound(to: CChar.self),
      destination.assumingMemoryBound(to: CChar.self), Int32(stored.count),
      Int32(content.count))
    return Int(count) == content.count
  }
}
