import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Transient trackers", .enabled(if: canTrack, "needs loop devices and BTF"))
struct TransientTrackerTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  private func disk(_ size: Int = 16 << 20) throws -> LoopDevice {
    try LoopDevice(size: size, in: folder)
  }

  @Test("Nothing is marked before the first write, and only its blocks after it")
  func oneWrite() throws {
    let disk = try disk()
    let tracker = try #require(try ChangeTracker.transient(on: [number(disk.path)]).first)
    #expect(tracker.blockSize == 65536)
    #expect(!tracker.hasMarks)
    try writeBytes([UInt8](repeating: 1, count: 8192), to: disk.path, at: 3 << 16)
    #expect(tracker.hasMarks)
    #expect(tracker.isMarked(3 << 16..<(3 << 16) + 1))
    #expect(!tracker.isMarked(2 << 16..<3 << 16))
    #expect(tracker.markedBytes == 65536)
    let blocks = tracker.exchange()
    #expect(ranges(blocks) == [3 << 16..<4 << 16])
    #expect(blocks.byteCount == 65536 && !blocks.isEverything)
    #expect(!tracker.hasMarks && tracker.lossReason == nil)
  }
}
