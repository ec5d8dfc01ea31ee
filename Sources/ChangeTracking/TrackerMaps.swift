import CBPF
import CChangeTracker
import Glibc
import Platform

/// A write to a bio-based disk that is in flight: a value of the map `pending`.
struct PendingWrite {
  let sector: Int
  let sectorCount: Int
  let disk: DeviceNumber
}

/// The maps of a program set.
struct TrackerMaps: Sendable {
  let disks: KernelObject
  let bitmaps: KernelObject
  let pending: KernelObject
  let identity: KernelObject

  static let names = ["disks", "bitmaps", "pending", "identity"]

  init(_ open: (String) throws(StrobeError) -> KernelObject) throws(StrobeError) {
    disks = try open("disks")
    bitmaps = try open("bitmaps")
    pending = try open("pending")
    identity = try open("identity")
  }

  // MARK: Windows

  func windows(of disk: DeviceNumber) throws(StrobeError) -> DiskWindows {
    try Self.lookup(disks, disk.kernelNumber, DiskWindows.size).map { DiskWindows($0) }
      ?? DiskWindows()
  }

  private func setWindows(_ windows: DiskWindows, of disk: DeviceNumber) throws(StrobeError) {
    var key = disk.kernelNumber
    if windows.windows.isEmpty {
      let result = unsafe bpf_map_delete_elem(disks.number, &key)
      if result < 0 && result != -ENOENT {
        throw .system(-result, call: "bpf_map_delete_elem", object: "tracked disks")
      }
    } else {
      try Self.update(disks, key, windows.bytes)
    }
  }

  /// Slots in use by any disk.
  func usedSlots() throws(StrobeError) -> Set<UInt32> {
    var slots: Set<UInt32> = []
    var key: UInt32 = 0
    var next: UInt32 = 0
    var result = unsafe bpf_map_get_next_key(disks.number, nil, &next)
    while result == 0 {
      let windows = try windows(of: DeviceNumber(kernelNumber: next))
      slots.formUnion(windows.windows.map(\.slot))
      key = next
      result = unsafe bpf_map_get_next_key(disks.number, &key, &next)
    }
    guard result == -ENOENT else {
      throw .system(-result, call: "bpf_map_get_next_key", object: "tracked disks")
    }
    return slots
  }

  /// From here on writes in the window are marked in `memory`.
  func connect(
    _ geometry: TrackerGeometry, _ memory: TrackerMemory, slot: UInt32
  ) throws(StrobeError) {
    var windows = try windows(of: geometry.disk)
    guard windows.windows.count < DiskWindows.limit else {
      throw StrobeError(
        .refused,
        "changes can't be tracked: disk \(geometry.disk) has \(DiskWindows.limit) trackers already")
    }
    memory[HeaderWord.slot] = UInt64(slot)
    try Self.update(bitmaps, slot, Self.bytes(of: UInt32(bitPattern: memory.map!.number)))
    windows.windows.append(DiskWindows.Window(geometry, slot: slot))
    try setWindows(windows, of: geometry.disk)
  }

  /// The reverse of `connect`, as far as it was done.
  func disconnect(_ disk: DeviceNumber, slot: UInt32) throws(StrobeError) {
    var windows = try windows(of: disk)
    windows.windows.removeAll { $0.slot == slot }
    try setWindows(windows, of: disk)
    var key = slot
    let result = unsafe bpf_map_delete_elem(bitmaps.number, &key)
    if result < 0 && result != -ENOENT {
      throw .system(-result, call: "bpf_map_delete_elem", object: "bitmaps")
    }
  }

  /// The kernel's number of the map in a slot, or nil when it is free.
  func mapID(inSlot slot: UInt32) throws(StrobeError) -> UInt32? {
    try Self.lookup(bitmaps, slot, 4).map { $0.littleEndian(at: 0) }
  }

  // MARK: Writes in flight

  /// Writes to bio-based disks that were queued and have not ended, as far as the kernel told.
  func pendingWrites() throws(StrobeError) -> [PendingWrite] {
    let limit = 1024
    var writes: [PendingWrite] = []
    var keys = [UInt8](repeating: 0, count: limit * 8)
    var values = [UInt8](repeating: 0, count: limit * 16)
    // Where the next batch begins, opaque; nil: at the beginning.
    var position: UInt64?
    var next: UInt64 = 0
    while true {
      var count = UInt32(limit)
      var start = position ?? 0
      let result = unsafe withUnsafeMutablePointer(to: &start) { start in
        unsafe bpf_map_lookup_batch(
          pending.number, position == nil ? nil : start, &next, &keys, &values, &count, nil)
      }
      guard result == 0 || result == -ENOENT else {
        throw .system(-result, call: "bpf_map_lookup_batch", object: "writes in flight")
      }
      for index in 0..<Int(count) {
        writes.append(
          PendingWrite(
            sector: Int(values.littleEndian(at: index * 16, as: UInt64.self)),
            sectorCount: Int(values.littleEndian(at: index * 16 + 8, as: UInt32.self)),
            disk: DeviceNumber(kernelNumber: values.littleEndian(at: index * 16 + 12))))
      }
      if result == -ENOENT { return writes }
      position = next
    }
  }

  // MARK: Identity

  func readIdentity() throws(StrobeError) -> SetIdentity? {
    try Self.lookup(identity, 0, SetIdentity.size).flatMap { SetIdentity($0) }
  }

  func writeIdentity(_ value: SetIdentity) throws(StrobeError) {
    try Self.update(identity, 0, value.bytes)
  }

  // MARK: Elements

  private static func bytes(of value: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: value)
    return bytes
  }

  private static func lookup(
    _ map: KernelObject, _ key: UInt32, _ size: Int
  ) throws(StrobeError) -> [UInt8]? {
    var key = key
    var value = [UInt8](repeating: 0, count: size)
    let result = unsafe bpf_map_lookup_elem(map.number, &key, &value)
    if result == -ENOENT { return nil }
    guard result == 0 else {
      throw .system(-result, call: "bpf_map_lookup_elem", object: "tracker")
    }
    return value
  }

  private static func update(
    _ map: KernelObject, _ key: UInt32, _ value: [UInt8]
  ) throws(StrobeError) {
    var key = key
    try bpfCall("bpf_map_update_elem", "tracker") {
      unsafe bpf_map_update_elem(map.number, &key, value, 0)
    }
  }
}

/// Which program set a tracker belongs to: the value of the map `identity`.
struct SetIdentity: Equatable, Sendable {
  static let size = 56
  /// 16 random bytes.
  let generation: [UInt8]
  /// The kernel's numbers of the links, in the order of ``ProgramSet/programs``.
  let links: [UInt32]

  init(generation: [UInt8], links: [UInt32]) {
    self.generation = generation
    self.links = links
  }

  /// - Returns: nil for an empty one and for that of another version.
  init?(_ bytes: [UInt8]) {
    guard bytes.littleEndian(at: 16, as: UInt64.self) == UInt64(TRACKER_VERSION) else {
      return nil
    }
    generation = Array(bytes[..<16])
    links = ProgramSet.programs.indices.map { bytes.littleEndian(at: 24 + $0 * 4) }
  }

  var bytes: [UInt8] {
    var bytes = generation
    bytes.append(littleEndian: UInt64(TRACKER_VERSION))
    for link in links { bytes.append(littleEndian: link) }
    return bytes + Array(repeating: 0, count: Self.size - bytes.count)
  }
}
