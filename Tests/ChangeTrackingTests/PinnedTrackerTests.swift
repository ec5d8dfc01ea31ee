import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Pinned trackers", .serialized, .enabled(if: canTrack, "needs loop devices and BTF"))
struct PinnedTrackerTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let pins = PinPlace()

  private func write(_ disk: LoopDevice, at offset: Int = 0) throws {
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.path, at: offset)
  }

  @Test("A pinned tracker goes on marking while nobody holds it, and keeps its base")
  func survives() throws {
    let disk = try LoopDevice(size: 16 << 20, in: folder)
    let device = try number(disk.path)
    #expect(try ChangeTracker.openPinned(device, in: pins.place) == nil)
    try ChangeTracker.startPinned(device, in: pins.place)
    try write(disk, at: 5 << 16)
    let base = TrackerBase(
      collection: randomBytes(12), point: randomBytes(12), disk: "system disk")
    do {
      let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
      #expect(tracker.lossReason == nil)
      #expect(tracker.isPinned && tracker.base == nil)
      tracker.setBase(base)
      #expect(ranges(tracker.exchange()) == [5 << 16..<6 << 16])
    }
    try write(disk, at: 7 << 16)
    let tracker = try #require(try ChangeTracker.openPinned(device, in: pins.place))
    #expect(tracker.base == base)
    #expect(ranges(tracker.exchange()) == [7 << 16..<8 << 16])
    tracker.setBase(nil)
    #expect(tracker.base == nil)
  }
}
