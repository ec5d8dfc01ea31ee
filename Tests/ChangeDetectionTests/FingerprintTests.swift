import ChangeDetection
import Platform
import Synchronization
import TestSupport
import Testing

/// The secret that XXH3 uses when it is given none, so that its published digests hold.
/// Source: `XXH3_kSecret` in <https://github.com/Cyan4973/xxHash>.
private let defaultSecret: [UInt8] = [
  0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
  0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
  0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
  0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
  0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
  0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
  0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
  0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
  0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
  0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
  0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
  0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
]

@Suite("Fingerprints")
struct FingerprintTests {
  private func fingerprint(_ content: [UInt8], _ secret: FingerprintSecret) -> Fingerprint {
    unsafe content.withUnsafeBytes { unsafe secret.fingerprint(of: $0) }
  }

  @Test(
    "With the default secret they are XXH3's own digests",
    arguments: [
      (1, 0x13E6_08BC_156D_EFED, 0x22BB_B76B_211A_39BA),
      (3, 0xA908_8DDA_485B_481C, 0xCE31_763C_BF82_45A5),
      (8, 0x3CD0_24E3_D63A_1588, 0xE3BC_8A5F_4617_1555),
      (16, 0x60D7_5C5E_47D4_0A24, 0xCE0B_9647_AB24_F884),
      (64, 0xAA54_9D72_C69C_D267, 0xFED9_53FE_6A8B_2B63),
      (128, 0xC580_008B_6C92_AC53, 0x1B19_62A0_96BA_C78B),
      (129, 0xBD91_CE7A_CE4D_385B, 0x293E_4968_C461_9023),
      (240, 0x04E0_B5F0_34BE_E80B, 0xAD46_C102_1B07_6BC7),
      (241, 0x8BEA_DD3A_8874_FE17, 0xAC6C_3492_C3D6_B45D),
      (512, 0xF582_02B8_D901_9D1D, 0x1AF3_D036_7BA5_A0C4),
      (1024, 0x9B81_661C_641C_72B1, 0x18BC_0EAC_A9A3_3636),
      (4096, 0xD742_8746_842B_E37E, 0x1546_8674_2310_5CD5),
      (4608, 0x423D_F047_9E28_A99B, 0x90B3_C9DE_CF3D_CEE4),
    ] as [(Int, UInt64, UInt64)])
  func knownVectors(count: Int, low: UInt64, high: UInt64) throws {
    let secret = try #require(FingerprintSecret(defaultSecret))
    let content = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + 3) }
    #expect(fingerprint(content, secret) == Fingerprint(low: low, high: high))
  }

  @Test(
    "SHA-256 is that of the secret's first 64 bytes and the content, as hashlib makes it",
    arguments: [
      (1, 0xC178_0940_6E97_7C36, 0x0E94_5F51_6CC7_B6F0),
      (55, 0xB69F_1E75_0468_0655, 0x667A_F6D8_C395_CE03),
      (56, 0xD5B6_66E5_CF00_482D, 0x4347_CE6D_B91A_DD04),
      (63, 0xD5EF_6BB0_255E_54BB, 0x7659_6516_8D22_4892),
      (64, 0xA502_549A_9D93_EF30, 0xC317_88BF_AFE8_2790),
      (65, 0x4D1F_CA9F_0842_E98E, 0x763A_28D5_5C04_53D1),
      (512, 0x63F1_06D2_FC8D_0336, 0xA421_EC61_F5FB_9406),
      (4096, 0xCA90_CDFE_540C_3596, 0xD17E_E5F3_3773_9FB7),
      (65_536, 0x25E0_972C_91A4_DA62, 0x3190_A953_1915_716D),
    ] as [(Int, UInt64, UInt64)])
  func knownDigests(count: Int, low: UInt64, high: UInt64) throws {
    let key = (0..<192).map { UInt8(truncatingIfNeeded: $0 * 7) }
    let secret = try #require(FingerprintSecret(key, kind: .sha256))
    let content = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + 3) }
    #expect(fingerprint(content, secret) == Fingerprint(low: low, high: high))
    for index in [0, 63] {
      var other = key
      other[index] ^= 1
      let different = try #require(FingerprintSecret(other, kind: .sha256))
      #expect(fingerprint(content, different) != Fingerprint(low: low, high: high))
    }
    let xxh3 = try #require(FingerprintSecret(key))
    #expect(xxh3 != secret && fingerprint(content, xxh3) != fingerprint(content, secret))
  }

  @Test("Many threads at once make the same fingerprints", arguments: FingerprintKind.allCases)
  func threads(kind: FingerprintKind) throws {
    let secret = FingerprintSecret(kind)
    var generator = SeededGenerator(seed: 8)
    let contents = (0..<64).map { _ in generator.bytes(4096) }
    let expected = contents.map { fingerprint($0, secret) }
    #expect(Set(expected.map(\.description)).count == 64)
    let wrong = Atomic<Int>(0)
    try onWorkers(8, stop: CancellationFlag()) { (_) throws(StrobeError) in
      for _ in 0..<20 {
        for (content, mark) in zip(contents, expected) {
          let found = unsafe content.withUnsafeBytes { unsafe secret.fingerprint(of: $0) }
          if found != mark { wrong.wrappingAdd(1, ordering: .relaxed) }
        }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
  }

  @Test(
    "The same content has the same fingerprint, at any alignment",
    arguments: FingerprintKind.allCases)
  func stable(kind: FingerprintKind) {
    var generator = SeededGenerator(seed: 5)
    let secret = FingerprintSecret(kind)
    let content = generator.bytes(4096)
    let expected = fingerprint(content, secret)
    for shift in 0..<64 {
      let moved = [UInt8](repeating: 7, count: shift) + content
      let found = unsafe moved.withUnsafeBytes {
        unsafe secret.fingerprint(of: UnsafeRawBufferPointer(rebasing: $0[shift...]))
      }
      #expect(found == expected)
    }
  }

  @Test("Another secret gives another fingerprint, also when it differs in one byte")
  func keyed() throws {
    var generator = SeededGenerator(seed: 6)
    let content = generator.bytes(65536)
    let key = generator.bytes(192)
    let expected = fingerprint(content, try #require(FingerprintSecret(key)))
    #expect(fingerprint(content, FingerprintSecret()) != expected)
    for index in 0..<192 {
      var other = key
      other[index] ^= 1
      #expect(
        fingerprint(content, try #require(FingerprintSecret(other))) != expected, "byte \(index)")
    }
  }

  @Test("One flipped bit anywhere gives another fingerprint", arguments: [512, 4096])
  func oneBit(count: Int) {
    var generator = SeededGenerator(seed: 7)
    let secret = FingerprintSecret()
    var content = generator.bytes(count)
    let expected = fingerprint(content, secret)
    var unnoticed: [Int] = []
    for bit in 0..<(count * 8) {
      content[bit / 8] ^= 1 << UInt8(bit % 8)
      if fingerprint(content, secret) == expected { unnoticed.append(bit) }
      content[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    #expect(unnoticed.isEmpty)
  }

  @Test("Content that differs only in its length differs")
  func lengths() {
    let secret = FingerprintSecret()
    var seen: [String] = []
    for count in 0...600 {
      seen.append(fingerprint([UInt8](repeating: 0, count: count), secret).description)
    }
    #expect(Set(seen).count == seen.count)
  }

  @Test("A secret has 192 bytes", arguments: [0, 136, 191, 193])
  func secretSize(count: Int) {
    #expect(FingerprintSecret([UInt8](repeating: 1, count: count)) == nil)
    #expect(FingerprintSecret([UInt8](repeating: 1, count: 192)) != nil)
    #expect(FingerprintSecret().bytes.count == 192)
    #expect(FingerprintSecret() != FingerprintSecret())
  }

  @Test("It is stored low half first, in 16 bytes, and reads as 32 digits, high half first")
  func encoding() {
    let fingerprint = Fingerprint(low: 0x0102_0304_0506_0708, high: 0x11)
    var bytes = [UInt8](repeating: 0xEE, count: 18)
    unsafe bytes.withUnsafeMutableBytes { unsafe fingerprint.store(at: $0.baseAddress! + 1) }
    let stored: [UInt8] = [8, 7, 6, 5, 4, 3, 2, 1, 0x11, 0, 0, 0, 0, 0, 0, 0]
    #expect(bytes == [0xEE] + stored + [0xEE])
    let loaded = unsafe bytes.withUnsafeBytes { unsafe Fingerprint(at: $0.baseAddress! + 1) }
    #expect(loaded == fingerprint)
    #expect(fingerprint.description == "00000000000000110102030405060708")
    #expect(Fingerprint.zero.isZero && !fingerprint.isZero)
    #expect(!Fingerprint(low: 0, high: 1).isZero && !Fingerprint(low: 1, high: 0).isZero)
  }
}

@Suite("Detecting zeros")
struct ZeroTests {
  @Test("Zeros are zeros and one other byte at any position is seen, for every length to 300")
  func exhaustive() {
    var wrong: [String] = []
    for length in 0...300 {
      // The bytes around are not zero: what lies outside must not matter.
      var bytes = [UInt8](repeating: 0xFF, count: length + 32)
      for index in 16..<(16 + length) { bytes[index] = 0 }
      unsafe bytes.withUnsafeMutableBytes { memory in
        let window = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[16..<(16 + length)])
        if unsafe !isZero(UnsafeRawBufferPointer(window)) { wrong.append("zeros \(length)") }
        for position in 0..<length {
          unsafe window[position] = 1 << UInt8(position % 8)
          if unsafe isZero(UnsafeRawBufferPointer(window)) {
            wrong.append("\(position) of \(length)")
          }
          unsafe window[position] = 0
        }
      }
    }
    #expect(wrong.isEmpty)
  }

  @Test("It holds at every alignment and for a whole chunk")
  func alignments() {
    let size = 65536
    var bytes = [UInt8](repeating: 0, count: size + 64)
    for shift in 0..<64 {
      unsafe bytes.withUnsafeMutableBytes { memory in
        let window = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[shift..<(shift + size)])
        let zeros = unsafe isZero(UnsafeRawBufferPointer(window))
        unsafe window[size - 1] = 1
        let last = unsafe isZero(UnsafeRawBufferPointer(window))
        unsafe window[size - 1] = 0
        #expect(zeros && !last)
      }
    }
  }

  @Test("Nothing at all is zero")
  func nothing() {
    let none = unsafe isZero(UnsafeRawBufferPointer(start: nil, count: 0))
    #expect(none)
  }
}
