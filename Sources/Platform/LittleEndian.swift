// Inlinable throughout: a generic load that is not specialised costs more than hashing a kilobyte.
//
// Multi-byte numbers on disk are little-endian and encoded field by field: nothing here depends on how
// the processor or the compiler lays out a struct.

extension UnsafeRawPointer {
  /// The little-endian number at `offset`, which needs no alignment.
  @inlinable package func littleEndian<Value: FixedWidthInteger>(
    at offset: Int, as _: Value.Type = Value.self
  ) -> Value {
    unsafe Value(littleEndian: loadUnaligned(fromByteOffset: offset, as: Value.self))
  }
}

extension UnsafeMutableRawPointer {
  @inlinable package func setLittleEndian(_ value: some FixedWidthInteger, at offset: Int) {
    unsafe storeBytes(of: value.littleEndian, toByteOffset: offset, as: type(of: value).self)
  }
}

extension [UInt8] {
  @inlinable package mutating func append(littleEndian value: some FixedWidthInteger) {
    for index in 0..<(value.bitWidth / 8) {
      append(UInt8(truncatingIfNeeded: value >> (index * 8)))
    }
  }

  @inlinable package func littleEndian<Value: FixedWidthInteger>(
    at offset: Int, as _: Value.Type = Value.self
  ) -> Value {
    precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count)
    return unsafe withUnsafeBytes { unsafe $0.baseAddress!.littleEndian(at: offset) }
  }
}

extension [UInt8] {
  /// The array's memory, for bodies that throw ``StrobeError``.
  package mutating func withMutableBytes<Result>(
    _ body: (UnsafeMutableRawBufferPointer) throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    try unsafe withUnsafeMutableBufferPointer { (elements) throws(StrobeError) in
      try unsafe body(UnsafeMutableRawBufferPointer(elements))
    }
  }

  /// The array's memory, for bodies that throw ``StrobeError``.
  package func withBytes<Result>(
    _ body: (UnsafeRawBufferPointer) throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    try unsafe withUnsafeBufferPointer { (elements) throws(StrobeError) in
      try unsafe body(UnsafeRawBufferPointer(elements))
    }
  }
}
