import Platform
import TestSupport
import Testing

@Suite("Hexadecimal")
struct HexadecimalTests {
  @Test("Every byte has two lower-case digits and comes back")
  func everyByte() {
    let all = (0...255).map { UInt8($0) }
    for byte in all {
      let digits = String(byte, radix: 16)
      #expect(hexadecimal([byte]) == (digits.count == 1 ? "0" : "") + digits)
      #expect(bytes(hexadecimal: hexadecimal([byte])) == [byte])
    }
    #expect(bytes(hexadecimal: hexadecimal(all)) == all)
    #expect(hexadecimal([]) == "" && bytes(hexadecimal: "") == [])
  }

  @Test(
    "Anything but pairs of lower-case digits is refused",
    arguments: [
      "0", "abc", "AB", "0x", "g0", "0g", " 00", "00 ", "0\n", "-1", "é", "０0", "a\u{301}",
    ])
  func refused(text: String) {
    #expect(bytes(hexadecimal: text) == nil)
  }

  @Test("Random bytes are as many as asked for and not the same twice")
  func random() {
    #expect(randomBytes(0).isEmpty)
    #expect(randomBytes(16).count == 16)
    #expect(randomBytes(16) != randomBytes(16))
  }
}

@Suite("Little-endian numbers")
struct LittleEndianTests {
  @Test("The lowest byte comes first")
  func order() {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: UInt8(0x01))
    bytes.append(littleEndian: UInt16(0x0302))
    bytes.append(littleEndian: UInt32(0x0706_0504))
    bytes.append(littleEndian: UInt64(0x0F0E_0D0C_0B0A_0908))
    #expect(bytes == (1...15).map { UInt8($0) })
    #expect(bytes.littleEndian(at: 0, as: UInt8.self) == 0x01)
    #expect(bytes.littleEndian(at: 1, as: UInt16.self) == 0x0302)
    #expect(bytes.littleEndian(at: 3, as: UInt32.self) == 0x0706_0504)
    #expect(bytes.littleEndian(at: 7, as: UInt64.self) == 0x0F0E_0D0C_0B0A_0908)
  }

  @Test("Signed numbers keep their sign", arguments: [Int64.min, -2, -1, 0, 1, .max])
  func signed(value: Int64) {
    var bytes: [UInt8] = [0xFF]
    bytes.append(littleEndian: value)
    #expect(bytes.count == 9)
    #expect(bytes.littleEndian(at: 1, as: Int64.self) == value)
  }

  @Test("A number is stored and loaded at every alignment and touches nothing beside it")
  func alignment() {
    var generator = SeededGenerator(seed: 2)
    for offset in 0..<16 {
      let value = generator.next()
      var bytes = [UInt8](repeating: 0x5A, count: 32)
      unsafe bytes.withUnsafeMutableBytes {
        unsafe $0.baseAddress!.setLittleEndian(value, at: offset)
      }
      let loaded: UInt64 = unsafe bytes.withUnsafeBytes {
        unsafe $0.baseAddress!.littleEndian(at: offset)
      }
      var expected = [UInt8](repeating: 0x5A, count: offset)
      expected.append(littleEndian: value)
      expected += [UInt8](repeating: 0x5A, count: 32 - expected.count)
      #expect(loaded == value)
      #expect(bytes == expected)
    }
  }

  @Test("A number that would end behind the array stops the program")
  func outside() async {
    await #expect(processExitsWith: .failure) {
      _ = [UInt8](repeating: 0, count: 7).littleEndian(at: 0, as: UInt64.self)
    }
  }
}

@Suite("Aligned memory")
struct AlignedBufferTests {
  @Test("It has the size asked for and begins at a page", arguments: [1, 512, 4096, 5000, 1 << 20])
  func alignment(count: Int) {
    let buffer = AlignedBuffer(count: count)
    let bytes = unsafe buffer.bytes
    let address = unsafe UInt(bitPattern: buffer.address)
    for index in 0..<count { unsafe bytes[index] = UInt8(truncatingIfNeeded: index) }
    #expect(address % 4096 == 0)
    #expect(buffer.count == count)
  }
}
