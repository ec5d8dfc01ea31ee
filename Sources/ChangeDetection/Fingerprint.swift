import CLinux
import Platform

/// Keyed XXH3-128 of a chunk's content; zero stands for a chunk of zeros.
///
/// Fingerprints are compared only at the same position of the same disk and are keyed with a secret
/// that no guest sees. Source: <https://github.com/Cyan4973/xxHash>, `XXH3_128bits_withSecret`.
package struct Fingerprint: Equatable, Sendable, CustomStringConvertible {
  package static let byteCount = 16
  package static let zero = Fingerprint(low: 0, high: 0)

  package let low: UInt64
  package let high: UInt64

  @inlinable package init(low: UInt64, high: UInt64) {
    self.low = low
    self.high = high
  }

  @inlinable package var isZero: Bool { low | high == 0 }

  /// The fingerprint at `address`, 16 bytes, low half first.
  @inlinable package init(at address: UnsafeRawPointer) {
    unsafe low = address.littleEndian(at: 0)
    unsafe high = address.littleEndian(at: 8)
  }

  @inlinable package func store(at address: UnsafeMutableRawPointer) {
    unsafe address.setLittleEndian(low, at: 0)
    unsafe address.setLittleEndian(high, at: 8)
  }

  package var description: String {
    let digits = String(high, radix: 16)
    let rest = String(low, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
      + String(repeating: "0", count: 16 - rest.count) + rest
  }
}

/// The 192 random bytes that key a collection's fingerprints.
package struct FingerprintSecret: Sendable, Equatable {
  package static let byteCount = 192

  package let bytes: [UInt8]

  package init() { bytes = randomBytes(Self.byteCount) }

  /// - Returns: nil unless there are 192 bytes.
  package init?(_ bytes: [UInt8]) {
    guard bytes.count == Self.byteCount else { return nil }
    self.bytes = bytes
  }

  /// The fingerprint of content that is not all zeros.
  package func fingerprint(of content: UnsafeRawBufferPointer) -> Fingerprint {
    unsafe bytes.withUnsafeBufferPointer { key in
      let hash = unsafe clinux_xxh3_128(
        content.baseAddress, content.count, key.baseAddress, key.count)
      // Zero is taken: it means a chunk of zeros.
      return Fingerprint(low: hash.low | hash.high == 0 ? 1 : hash.low, high: hash.high)
    }
  }
}

/// Whether all bytes are zero.
package func isZero(_ content: UnsafeRawBufferPointer) -> Bool {
  unsafe clinux_is_zero(content.baseAddress, content.count) != 0
}
