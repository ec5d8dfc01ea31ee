import CChangeTracker
import Platform

/// The windows of one disk: a value of the map `disks`, as `struct disk` in tracker.bpf.c has it.
///
///     0 count   4 zero   8 window × 16: 0 start  8 end  16 slot  20 shift  24 level 1    (sectors)
struct DiskWindows: Equatable {
  struct Window: Equatable {
    let start: Int
    let end: Int
    let slot: UInt32
    /// A block is `1 << shift` sectors.
    let shift: Int
    /// The word at which level 1 begins.
    let level1: Int

    init(_ geometry: TrackerGeometry, slot: UInt32) {
      start = geometry.startSector
      end = geometry.startSector + geometry.sectorCount
      self.slot = slot
      shift = geometry.blockShift - 9
      level1 = geometry.level1Start
    }

    fileprivate init(_ bytes: [UInt8], at offset: Int) {
      start = Int(bytes.littleEndian(at: offset, as: UInt64.self))
      end = Int(bytes.littleEndian(at: offset + 8, as: UInt64.self))
      slot = bytes.littleEndian(at: offset + 16)
      shift = Int(bytes.littleEndian(at: offset + 20, as: UInt32.self))
      level1 = Int(bytes.littleEndian(at: offset + 24, as: UInt64.self))
    }
  }

  static let limit = Int(TRACKER_WINDOWS)
  static let size = 8 + limit * 32
  var windows: [Window] = []

  init() {}

  init(_ bytes: [UInt8]) {
    let count = min(Int(bytes.littleEndian(at: 0, as: UInt32.self)), Self.limit)
    windows = (0..<count).map { Window(bytes, at: 8 + $0 * 32) }
  }

  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: UInt32(windows.count))
    bytes.append(littleEndian: UInt32(0))
    for window in windows {
      bytes.append(littleEndian: UInt64(window.start))
      bytes.append(littleEndian: UInt64(window.end))
      bytes.append(littleEndian: window.slot)
      bytes.append(littleEndian: UInt32(window.shift))
      bytes.append(littleEndian: UInt64(window.level1))
    }
    return bytes + Array(repeating: 0, count: Self.size - bytes.count)
  }
}

extension DeviceNumber {
  /// The kernel's own number, as eBPF sees it.
  var kernelNumber: UInt32 { UInt32(major) << 20 | UInt32(minor) }

  init(kernelNumber: UInt32) {
    self.init(major: Int(kernelNumber >> 20), minor: Int(kernelNumber & 0xf_ffff))
  }
}
