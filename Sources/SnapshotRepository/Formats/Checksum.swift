import CLinux

/// XXH3-64 of what a layer, segment header or document says of itself.
package func checksum64(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
  unsafe clinux_xxh3_64(bytes.baseAddress, bytes.count)
}

/// XXH3-64 of an array's bytes.
package func checksum64(_ bytes: [UInt8]) -> UInt64 {
  unsafe bytes.withUnsafeBufferPointer { unsafe checksum64(UnsafeRawBufferPointer($0)) }
}

/// 16 hexadecimal digits.
package func hexadecimal(_ value: UInt64) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: 16 - digits.count) + digits
}
