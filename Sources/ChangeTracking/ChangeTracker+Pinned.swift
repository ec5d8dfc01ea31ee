import BlockDevices
import CChangeTracker
import Glibc
package import Platform

extension ChangeTracker {
  /// The pinned tracker of a device, held exclusively until the object goes; nil when there is none. It
  /// may be lost: see ``lossReason``.
  ///
  /// - Throws: `busy` when another pass holds it.
  package static func openPinned(
    _ device: DeviceNumber, in place: TrackerPlace = .standard
  ) throws(StrobeError) -> ChangeTracker? {
    guard try FileFacts(path: place.window(device)) != nil else { return nil }
    let lock = try place.lock(device)
    return try open(device, in: place, lock: lock)
  }

  /// Starts a pinned tracker, or replaces a lost one. It counts from no restore point yet.
  ///
  /// - Throws: `exists` when there is one that is not lost; `busy` when a pass uses it; `refused`, `system`
  ///   as ``transient(on:)``.
  package static func startPinned(
    _ device: DeviceNumber, in place: TrackerPlace = .standard
  ) throws(StrobeError) {
    let found = try trackable(device)
    let turn = try place.lock()
    defer { _ = turn.number }
    try place.prepare()
    let lock = try place.lock(device)
    if let old = try open(device, in: place, lock: nil) {
      guard old.lossReason != nil else {
        throw StrobeError(.exists, "changes of \(DeviceTree.label(device)) are tracked already")
      }
      try old.unpin(in: place)
    }
    let set = try PinnedSet.openOrMake(place)
    let used = try set.maps.usedSlots()
    guard let slot = (0..<UInt32(TRACKER_SLOTS)).first(where: { !used.contains($0) })
    else {
      throw StrobeError(.refused, "changes can't be tracked: there are too many trackers already")
    }
    let memory = try makeMemory(found, set)
    memory[HeaderWord.slot] = UInt64(slot)
    // Pinned first: what is connected can always be found and removed.
    try memory.map!.pin(place.window(device))
    do throws(StrobeError) {
      try set.maps.connect(found.geometry, memory, slot: slot)
    } catch {
      try? removeFile(place.window(device))
      throw error
    }
    settle([found])
    if found.isBioBased { _ = memory.take(HeaderWord.overflow) }
    _ = lock.number
  }

  /// Stops a pinned tracker, lost or not; the last one takes the programs with it.
  ///
  /// - Throws: `notFound` when there is none; `busy` when a pass uses it.
  package static func stopPinned(
    _ device: DeviceNumber, in place: TrackerPlace = .standard
  ) throws(StrobeError) {
    guard try FileFacts(path: place.window(device)) != nil else { throw noTracker(device) }
    let turn = try place.lock()
    defer { _ = turn.number }
    try stop(device, in: place)
  }

  /// Stops the trackers whose device is gone.
  /// - Returns: their devices.
  @discardableResult
  package static func stopVanished(
    in place: TrackerPlace = .standard
  ) throws(StrobeError) -> [DeviceNumber] {
    var vanished = try place.devices().filter { TrackedDevice($0) == nil }
    if vanished.isEmpty { return [] }
    let turn = try place.lock()
    defer { _ = turn.number }
    vanished = try place.devices().filter { TrackedDevice($0) == nil }
    for device in vanished { try stop(device, in: place) }
    return vanished
  }

  private static func stop(_ device: DeviceNumber, in place: TrackerPlace) throws(StrobeError) {
    let lock = try place.lock(device)
    defer { _ = lock.number }
    guard let old = try open(device, in: place, lock: nil) else { throw noTracker(device) }
    try old.unpinLast(in: place)
  }

  /// Stops this pinned tracker, which a pass holds: it can't be relied on.
  package func stop() throws(StrobeError) {
    guard let place else { return }
    let turn = try place.lock()
    defer { _ = turn.number }
    try unpinLast(in: place)
  }

  /// Removes the pin, and with the last one the programs.
  private func unpinLast(in place: TrackerPlace) throws(StrobeError) {
    try unpin(in: place)
    guard try place.devices().isEmpty else { return }
    try PinnedSet.remove(place)
    if unsafe rmdir(place.root) != 0 && errno != ENOENT && errno != ENOTEMPTY {
      throw .system(errno, call: "rmdir", object: place.root)
    }
  }

  private static func noTracker(_ device: DeviceNumber) -> StrobeError {
    StrobeError(
      .notFound, "changes of \(DeviceTree.label(device)) are not tracked",
      advice: "strobe track start begins it")
  }

  /// Takes the window from the programs and removes its pin.
  private func unpin(in place: TrackerPlace) throws(StrobeError) {
    if let set, memory.map != nil {
      let slot = UInt32(truncatingIfNeeded: memory[HeaderWord.slot])
      if try Self.isConnected(memory, slot, in: set) {
        try set.maps.disconnect(geometry.disk, slot: slot)
      }
    }
    try removeFile(place.window(device))
  }

  private static func isConnected(
    _ memory: TrackerMemory, _ slot: UInt32, in set: ProgramSet
  ) throws(StrobeError) -> Bool {
    try set.maps.mapID(inSlot: slot) == memory.map!.mapInfo().id
  }

  // MARK: Opening

  /// The tracker as it is pinned, with what is wrong with it.
  static func open(
    _ device: DeviceNumber, in place: TrackerPlace, lock: consuming FileDescriptor?
  ) throws(StrobeError) -> ChangeTracker? {
    guard let map = try KernelObject(pinned: place.window(device)) else { return nil }
    let info = try map.mapInfo()
    var doubt: String?
    var set: ProgramSet?
    do throws(TrackerDoubt) { set = try PinnedSet.open(place) } catch { doubt = error.reason }
    guard info.valueSize == 8, info.entries >= TrackerGeometry.headerWords else {
      return try unreadable(device, in: place, set, lock, "its bitmap is of another version")
    }
    let memory = try TrackerMemory(mapping: map, wordCount: info.entries)
    guard let geometry = TrackerGeometry(header: memory), geometry.device == device else {
      return try unreadable(device, in: place, set, lock, "its bitmap is of another version")
    }
    if let set { doubt = try connectionDoubt(memory, geometry, set) }
    let isBioBased = TrackedDevice(device)?.isBioBased ?? false
    return ChangeTracker(
      geometry: geometry, memory: memory, set: set, isBioBased: isBioBased, place: place,
      lock: lock, doubt: doubt)
  }

  private static func connectionDoubt(
    _ memory: TrackerMemory, _ geometry: TrackerGeometry, _ set: ProgramSet
  ) throws(StrobeError) -> String? {
    let generation = memory.bytes(at: HeaderWord.generation, words: 2)
    guard generation == set.identity.generation else { return "its program was removed" }
    let slot = UInt32(truncatingIfNeeded: memory[HeaderWord.slot])
    let window = DiskWindows.Window(geometry, slot: slot)
    guard try isConnected(memory, slot, in: set),
      try set.maps.windows(of: geometry.disk).windows.contains(window)
    else { return "it is not connected with its program" }
    return nil
  }

  /// Stands for a tracker whose bitmap makes no sense.
  private static func unreadable(
    _ device: DeviceNumber, in place: TrackerPlace, _ set: ProgramSet?,
    _ lock: consuming FileDescriptor?, _ reason: String
  ) throws(StrobeError) -> ChangeTracker {
    let geometry =
      TrackedDevice(device)?.geometry
      ?? TrackerGeometry(device: device, disk: device, startSector: 0, sectorCount: 0)
    return ChangeTracker(
      geometry: geometry, memory: try TrackerMemory(emptyOf: geometry.wordCount), set: set,
      isBioBased: false, place: place, lock: lock, doubt: reason)
  }
}

extension TrackerGeometry {
  /// What a tracker's header says, or nil when it can't be one.
  init?(header memory: TrackerMemory) {
    let sectors = memory[HeaderWord.sectorCount]
    let start = memory[HeaderWord.startSector]
    let shift = memory[HeaderWord.blockShift]
    guard memory[HeaderWord.magic] == HeaderWord.magicValue,
      memory[HeaderWord.version] == UInt64(TRACKER_VERSION),
      sectors < 1 << 54, start < 1 << 54, (12..<48).contains(shift)
    else { return nil }
    self.init(
      device: DeviceNumber(kernelNumber: UInt32(truncatingIfNeeded: memory[HeaderWord.device])),
      disk: DeviceNumber(kernelNumber: UInt32(truncatingIfNeeded: memory[HeaderWord.disk])),
      startSector: Int(start), sectorCount: Int(sectors), blockShift: Int(shift))
    guard wordCount <= memory.wordCount else { return nil }
  }
}
