import Glibc

/// Memory of a fixed size at a page boundary, as O_DIRECT wants it; freed when it goes out of scope.
@safe package struct AlignedBuffer: ~Copyable, @unchecked Sendable {
  // Sendable: the owner is unique, and whoever holds it is alone with the memory.
  package let bytes: UnsafeMutableRawBufferPointer

  /// - Parameter count: bytes; the memory is not zeroed.
  package init(count: Int, alignment: Int = 4096) {
    unsafe bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: alignment)
  }

  deinit { unsafe bytes.deallocate() }

  package var count: Int { unsafe bytes.count }

  package var address: UnsafeMutableRawPointer { unsafe bytes.baseAddress! }
}
