import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Cost of trackers", .serialized, .enabled(if: canTrack, "needs loop devices and BTF"),
  .enabled(if: Machine.runsLong, "prints figures; needs STROBE_LONG=1"))
struct CostTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  private func milliseconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    return (ContinuousClock.now - start) / .milliseconds(1)
  }

  @Test("Starting, and taking the marks of a disk of 1 TiB that has none")
  func times() throws {
    let disk = try LoopDevice(size: 1 << 40, in: folder)
    var trackers: [ChangeTracker] = []
    for _ in 0..<3 {
      trackers = []
      let start = try milliseconds {
        trackers = try ChangeTracker.transient(on: [number(disk.path)])
      }
      let exchange = milliseconds { #expect(trackers[0].exchange().isEmpty) }
      let look = milliseconds { #expect(trackers[0].lossReason == nil) }
      let end = milliseconds { trackers = [] }
      print("start \(start) ms, exchange \(exchange) ms, lossReason \(look) ms, end \(end) ms")
    }
  }

  @Test(
    "Random writes with and without a tracker", .enabled(if: Machine.has("fio"), "needs fio"))
  func slowdown() throws {
    let disk = try LoopDevice(size: 256 << 20, in: folder)
    try writeBytes([UInt8](repeating: 1, count: 256 << 20), to: disk.path)
    for _ in 0..<3 {
      for isTracked in [false, true] {
        let trackers = try isTracked ? ChangeTracker.transient(on: [number(disk.path)]) : []
        var count = 0
        let time = try milliseconds {
          count = try writeRandomly(disk.path, jobs: 2, writes: 150_000, depth: 16, seed: 1)
        }
        print("tracked \(isTracked): \(Int(Double(count) / time * 1000)) writes/s")
        #expect(trackers.allSatisfy { $0.hasMarks })
      }
    }
  }
}
