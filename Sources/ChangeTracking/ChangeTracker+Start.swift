import BlockDevices
import CChangeTracker
import Glibc
package import Platform

extension ChangeTracker {
  /// A tracker for each of `devices`, in their order, which lasts as long as the object and the process.
  ///
  /// - Throws: `refused` when a device can't be tracked reliably or the kernel lacks what it takes; `system`
  ///   when the kernel says no.
  ///
  /// - Parameter pendingLimit: how many writes to bio-based disks may be in flight; nil: 16,384. When
  ///   there are more, everything counts as written.
  package static func transient(
    on devices: [DeviceNumber], pendingLimit: Int? = nil
  ) throws(StrobeError) -> [ChangeTracker] {
    var found: [TrackedDevice] = []
    for device in devices { found.append(try trackable(device)) }
    if found.isEmpty { return [] }
    let set = try ProgramSet(
      pendingLimit: found.contains(where: \.isBioBased) ? pendingLimit : 1)
    var trackers: [ChangeTracker] = []
    for (slot, device) in found.enumerated() {
      let memory = try makeMemory(device, set)
      try set.maps.connect(device.geometry, memory, slot: UInt32(slot))
      trackers.append(
        ChangeTracker(
          geometry: device.geometry, memory: memory, set: set, isBioBased: device.isBioBased,
          place: nil, lock: nil, doubt: nil))
    }
    settle(found)
    for (tracker, device) in zip(trackers, found) where device.isBioBased {
      tracker.forgetUnknownEnds()
    }
    return trackers
  }

  /// The tracker's memory with its header filled in, marking nothing yet.
  static func makeMemory(
    _ device: TrackedDevice, _ set: ProgramSet
  ) throws(StrobeError) -> TrackerMemory {
    let geometry = device.geometry
    let memory = try TrackerMemory(creating: geometry)
    memory[HeaderWord.version] = UInt64(TRACKER_VERSION)
    memory[HeaderWord.device] = UInt64(geometry.device.kernelNumber)
    memory[HeaderWord.disk] = UInt64(geometry.disk.kernelNumber)
    memory[HeaderWord.startSector] = UInt64(geometry.startSector)
    memory[HeaderWord.sectorCount] = UInt64(geometry.sectorCount)
    memory[HeaderWord.blockShift] = UInt64(geometry.blockShift)
    memory[HeaderWord.level1Start] = UInt64(geometry.level1Start)
    memory[HeaderWord.diskSequence] = device.diskSequence
    memory.set(randomBytes(16), at: HeaderWord.tracker)
    memory.set(set.identity.generation, at: HeaderWord.generation)
    memory[HeaderWord.startedAt] = wallClockNanoseconds()
    memory[HeaderWord.skips] = set.skips ?? 0
    memory[HeaderWord.magic] = HeaderWord.magicValue
    return memory
  }

  static func trackable(_ device: DeviceNumber) throws(StrobeError) -> TrackedDevice {
    guard let found = TrackedDevice(device) else {
      throw StrobeError(.notFound, "there is no block device \(device)")
    }
    if let obstacle = found.obstacle {
      throw StrobeError(.refused, "changes can't be tracked: \(obstacle)")
    }
    return found
  }

  /// Gives writes to bio-based disks that began before the tracker time to end: such an end names no range,
  /// and marks everything. Only saves work: what ends later marks everything.
  static func settle(_ devices: [TrackedDevice]) {
    let bioBased = devices.filter(\.isBioBased)
    for _ in 0..<200 {
      if bioBased.allSatisfy(\.hasNoWritesInFlight) { return }
      usleep(1000)
    }
  }

  /// What ended before the first look at the disk does not matter.
  func forgetUnknownEnds() { _ = memory.take(HeaderWord.overflow) }

  private static func wallClockNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
