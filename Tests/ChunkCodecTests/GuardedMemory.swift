import Glibc
import TestSupport

/// Memory that ends at a page which nobody may touch, with known bytes before it: a write or a read
/// behind the end stops the program, a write before the start shows.
@safe final class GuardedMemory {
  private static let pageSize = 4096
  private static let pattern: UInt8 = 0xC5

  let bytes: UnsafeMutableRawBufferPointer
  private let mapping: UnsafeMutableRawPointer
  private let mappingSize: Int
  private let before: Int

  init(count: Int) {
    let whole = (count + 2 * Self.pageSize - 1) & ~(Self.pageSize - 1)
    mappingSize = whole + Self.pageSize
    before = whole - count
    let flags = MAP_PRIVATE | MAP_ANONYMOUS
    unsafe mapping = mmap(nil, mappingSize, PROT_READ | PROT_WRITE, flags, -1, 0)
    guard unsafe mprotect(mapping + whole, Self.pageSize, PROT_NONE) == 0 else {
      fatalError("no guard page")
    }
    unsafe memset(mapping, Int32(Self.pattern), whole)
    unsafe bytes = UnsafeMutableRawBufferPointer(start: mapping + before, count: count)
  }

  convenience init(_ content: [UInt8]) {
    self.init(count: content.count)
    unsafe bytes.copyBytes(from: content)
  }

  deinit { unsafe munmap(mapping, mappingSize) }

  var content: [UInt8] { unsafe Array(bytes) }

  /// Whether nothing was written before the start.
  var isIntact: Bool {
    // Compared with itself, shifted by one: fast also in a debug build.
    let first = unsafe mapping.load(as: UInt8.self)
    let rest = unsafe memcmp(mapping, mapping + 1, before - 1)
    return first == Self.pattern && rest == 0
  }
}
