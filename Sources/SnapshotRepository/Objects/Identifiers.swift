import Platform

/// The random identity of a pass: 12 bytes, 24 hexadecimal digits. A committed snapshot pass gives it to
/// its restore point.
package struct PassID: Hashable, Sendable, CustomStringConvertible {
  package static let byteCount = 12

  package let bytes: [UInt8]

  package init() { bytes = randomBytes(Self.byteCount) }

  package init?(_ text: some StringProtocol) {
    guard let bytes = Platform.bytes(hexadecimal: text), bytes.count == Self.byteCount else {
      return nil
    }
    self.bytes = bytes
  }

  fileprivate init(bytes: ArraySlice<UInt8>) { self.bytes = Array(bytes) }

  package var description: String { hexadecimal(bytes) }

  /// The identity of the pass's `number`th layer or segment.
  package func object(_ number: UInt32) -> ObjectID {
    var bytes = bytes
    for shift in [24, 16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: number >> UInt32(shift))) }
    return ObjectID(bytes)!
  }
}

/// The identity of a layer or a segment: its pass's 12 bytes and a number, 32 hexadecimal digits.
package struct ObjectID: Hashable, Sendable, CustomStringConvertible {
  package static let byteCount = 16

  package let bytes: [UInt8]

  package init?(_ bytes: [UInt8]) {
    guard bytes.count == Self.byteCount else { return nil }
    self.bytes = bytes
  }

  package init?(_ text: some StringProtocol) {
    guard let bytes = Platform.bytes(hexadecimal: text) else { return nil }
    self.init(bytes)
  }

  package var description: String { hexadecimal(bytes) }

  package var pass: PassID { PassID(bytes: bytes[..<PassID.byteCount]) }

  package var layerName: String { "layers/\(folder)/\(self)" }
  package var segmentName: String { "segments/\(folder)/\(self)" }
  private var folder: String { hexadecimal(bytes[..<1]) }
}
