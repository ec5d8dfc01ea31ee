import CBPF
import CChangeTracker
import CLinux
import Glibc
import Platform

/// Words of a tracker's header; all others are zero.
enum HeaderWord {
  static let magic = 0
  static let version = 1
  static let device = 2
  static let disk = 3
  static let startSector = 4
  static let sectorCount = 5
  static let blockShift = 6
  static let level1Start = 7
  static let diskSequence = 8
  static let tracker = 10  // and 11
  static let generation = 12  // and 13
  static let startedAt = 14  // nanoseconds since 1970
  static let slot = 15
  static let overflow = Int(TRACKER_WORD_OVERFLOW)
  static let skips = 17
  static let baseSeal = 18
  static let base = 19  // 20 words
  /// Who exchanged last: a random number of each ``ChangeTracker`` object.
  static let owner = 40

  /// "STROBETR".
  static let magicValue: UInt64 = 0x5254_4542_4f52_5453
}

/// The memory of a tracker: a bitmap map of the kernel, mapped. Every access to a word is atomic, which
/// is what makes it safe to share, with other threads, processes and eBPF.
@safe final class TrackerMemory: @unchecked Sendable {
  /// The bitmap map; nil for memory that stands for a map which can't be read.
  let map: KernelObject?
  let wordCount: Int
  private let words: UnsafeMutablePointer<UInt64>

  /// Makes an empty bitmap map.
  convenience init(creating geometry: TrackerGeometry) throws(StrobeError) {
    var options = bpf_map_create_opts()
    options.sz = MemoryLayout<bpf_map_create_opts>.size
    options.map_flags = UInt32(BPF_F_MMAPABLE | BPF_F_INNER_MAP)
    let number = try bpfCall("bpf_map_create", "bitmap of \(geometry.wordCount * 8) bytes") {
      unsafe bpf_map_create(
        BPF_MAP_TYPE_ARRAY, "strobe_bitmap", 4, 8, UInt32(geometry.wordCount), &options)
    }
    try self.init(mapping: KernelObject(owning: number), wordCount: geometry.wordCount)
  }

  init(mapping map: KernelObject, wordCount: Int) throws(StrobeError) {
    unsafe words = try Self.mapped(map.number, MAP_SHARED, wordCount)
    self.map = map
    self.wordCount = wordCount
  }

  /// Zeros that belong to no tracker.
  init(emptyOf wordCount: Int) throws(StrobeError) {
    unsafe words = try Self.mapped(-1, MAP_PRIVATE | MAP_ANONYMOUS, wordCount)
    map = nil
    self.wordCount = wordCount
  }

  private static func mapped(
    _ descriptor: Int32, _ flags: Int32, _ wordCount: Int
  ) throws(StrobeError) -> UnsafeMutablePointer<UInt64> {
    let address = unsafe mmap(nil, wordCount * 8, PROT_READ | PROT_WRITE, flags, descriptor, 0)
    guard let address = unsafe address, Int(bitPattern: address) != -1 else {
      throw .system(errno, call: "mmap", object: "a tracker's bitmap")
    }
    return unsafe address.assumingMemoryBound(to: UInt64.self)
  }

  deinit { unsafe munmap(words, wordCount * 8) }

  @inline(__always)
  private func pointer(_ index: Int) -> UnsafeMutablePointer<UInt64> {
    precondition(index >= 0 && index < wordCount)
    return unsafe words + index
  }

  subscript(index: Int) -> UInt64 {
    get { unsafe cchange_tracker_load64(pointer(index)) }
    set { unsafe cchange_tracker_store64(pointer(index), newValue) }
  }

  /// Takes the bits of all words in a range and leaves none; a word without bits costs a load.
  func take(_ range: Range<Int>, _ body: (_ index: Int, _ bits: UInt64) -> Void) {
    var index = range.lowerBound
    while let found = firstSet(index..<range.upperBound) {
      body(found, unsafe cchange_tracker_exchange64(pointer(found), 0))
      index = found + 1
    }
  }

  /// The first word in a range that has bits.
  func firstSet(_ range: Range<Int>) -> Int? {
    precondition(range.lowerBound >= 0 && range.upperBound <= wordCount)
    let found = unsafe cchange_tracker_next64(words, range.lowerBound, range.upperBound)
    return found < range.upperBound ? found : nil
  }

  func exchange(_ index: Int, _ value: UInt64) -> UInt64 {
    unsafe cchange_tracker_exchange64(pointer(index), value)
  }

  func take(_ index: Int) -> UInt64 { unsafe cchange_tracker_exchange64(pointer(index), 0) }

  @inline(__always)
  func add(_ bits: UInt64, to index: Int) {
    let word = unsafe pointer(index)
    if unsafe cchange_tracker_load64(word) & bits != bits {
      unsafe _ = cchange_tracker_or64(word, bits)
    }
  }

  @inline(__always)
  func peek(_ index: Int) -> UInt64 { unsafe cchange_tracker_peek64(pointer(index)) }
}
