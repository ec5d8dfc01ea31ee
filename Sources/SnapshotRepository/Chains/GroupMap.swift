package import ChangeDetection
import Glibc
import Platform

/// The map of one group of 4,096 chunks: which chunks are known, which of those hold content, and of
/// each of these the fingerprint and the location. Used for one layer's group and for a resolved one.
package final class GroupMap: @unchecked Sendable {
  // Sendable: filled by one thread, then only read.
  package private(set) var known: [UInt64]
  package private(set) var stored: [UInt64]
  /// 4,096 × 16 bytes, zero where a chunk isn't stored.
  private let fingerprintBytes: AlignedBuffer
  private let locationBytes: AlignedBuffer

  package init() {
    known = Array(repeating: 0, count: ChunkGeometry.wordsPerGroup)
    stored = known
    fingerprintBytes = AlignedBuffer(count: FingerprintTable.blockSize)
    locationBytes = AlignedBuffer(count: ChunkGeometry.chunksPerGroup * ChunkLocation.byteCount)
    reset()
  }

  package func reset() {
    for word in known.indices {
      known[word] = 0
      stored[word] = 0
    }
    unsafe memset(fingerprintBytes.address, 0, fingerprintBytes.count)
    unsafe memset(locationBytes.address, 0, locationBytes.count)
  }

  /// Sets chunk `index` of the group (0 to 4,095) to content at a location.
  package func set(_ index: Int, _ fingerprint: Fingerprint, _ location: ChunkLocation) {
    precondition(index >= 0 && index < ChunkGeometry.chunksPerGroup)
    known[index >> 6] |= 1 << UInt64(index & 63)
    stored[index >> 6] |= 1 << UInt64(index & 63)
    unsafe fingerprint.store(at: fingerprintBytes.address + index * Fingerprint.byteCount)
    unsafe location.store(at: locationBytes.address + index * ChunkLocation.byteCount)
  }

  /// Sets chunks of a word to zeros.
  package func clear(word: Int, bits: UInt64) {
    known[word] |= bits
    stored[word] &= ~bits
  }

  package func fingerprint(_ index: Int) -> Fingerprint {
    precondition(index >= 0 && index < ChunkGeometry.chunksPerGroup)
    return unsafe Fingerprint(
      at: UnsafeRawPointer(fingerprintBytes.address) + index * Fingerprint.byteCount)
  }

  package func location(_ index: Int) -> ChunkLocation {
    precondition(index >= 0 && index < ChunkGeometry.chunksPerGroup)
    return unsafe ChunkLocation(
      at: UnsafeRawPointer(locationBytes.address) + index * ChunkLocation.byteCount)
  }

  package func isStored(_ index: Int) -> Bool { stored[index >> 6] & 1 << UInt64(index & 63) != 0 }

  /// The fingerprints of all 4,096 chunks, as a fingerprint table holds them.
  package var fingerprints: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(fingerprintBytes.bytes)
  }

  package var knownCount: Int { known.reduce(0) { $0 + $1.nonzeroBitCount } }
  package var storedCount: Int { stored.reduce(0) { $0 + $1.nonzeroBitCount } }
}
