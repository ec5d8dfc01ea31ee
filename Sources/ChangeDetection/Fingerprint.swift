import CLinux
import Platform

/// 128 bits of a keyed hash of a chunk's content; zero stands for a chunk of zeros.
///
/// Fingerprints are compared only at the same position of the same disk and are keyed with a secret
/// that no guest sees.
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

/// How the fingerprints of a collection are made.
public enum FingerprintKind: String, Codable, Sendable, CaseIterable {
  /// XXH3-128 with a secret, at memory speed: tells accidents and rot from content, not somebody who can write
  /// to the repository. Source: <https://github.com/Cyan4973/xxHash>, `XXH3_128bits_withSecret`.
  case xxh3 = "xxh3-128"
  /// SHA-256 of the secret's first 64 bytes and the content, cut to 128 bits: nobody finds other content for a
  /// fingerprint. Source: FIPS 180-4.
  case sha256 = "sha256-128"
}

/// What keys a collection's fingerprints: 192 random bytes, and the hash that they go into.
package struct FingerprintSecret: Sendable, Equatable {
  package static let byteCount = 192
  /// How many of them key SHA-256: one block of it.
  private static let sha256ByteCount = 64

  package let kind: FingerprintKind
  package let bytes: [UInt8]

  package init(_ kind: FingerprintKind = .xxh3) {
    self.init(kind, bytes: randomBytes(Self.byteCount))
  }

  /// - Returns: nil unless there are 192 bytes.
  package init?(_ bytes: [UInt8], kind: FingerprintKind = .xxh3) {
    guard bytes.count == Self.byteCount else { return nil }
    self.init(kind, bytes: bytes)
  }

  private init(_ kind: FingerprintKind, bytes: [UInt8]) {
    self.kind = kind
    self.bytes = bytes
    // Now and not at the first chunk, when file systems may be frozen.
    if kind == .sha256 { clinux_sha256_prepare() }
  }

  /// The fingerprint of content that is not all zeros.
  package func fingerprint(of content: UnsafeRawBufferPointer) -> Fingerprint {
    unsafe bytes.withUnsafeBufferPointer { key in
      guard kind == .xxh3 else { return unsafe Self.sha256(content, key) }
      let hash = unsafe clinux_xxh3_128(
        content.baseAddress, content.count, key.baseAddress, key.count)
      // Zero is taken: it means a chunk of zeros.
      return Fingerprint(low: hash.low | hash.high == 0 ? 1 : hash.low, high: hash.high)
    }
  }

  private static func sha256(
    _ content: UnsafeRawBufferPointer, _ key: UnsafeBufferPointer<UInt8>
  ) -> Fingerprint {
    unsafe withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { digest in
      let start = digest.baseAddress!
      let result = unsafe clinux_sha256(
        key.baseAddress, sha256ByteCount, content.baseAddress, content.count,
        start.assumingMemoryBound(to: UInt8.self))
      guard result == 0 else { fatalError("libcrypto makes no SHA-256: out of memory?") }
      let hash = unsafe Fingerprint(at: UnsafeRawPointer(start))
      return hash.isZero ? Fingerprint(low: 1, high: 0) : hash
    }
  }
}

/// Whether all bytes are zero.
package func isZero(_ content: UnsafeRawBufferPointer) -> Bool {
  unsafe clinux_is_zero(content.baseAddress, content.count) != 0
}
