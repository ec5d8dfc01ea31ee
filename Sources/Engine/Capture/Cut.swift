import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository

// The cut: what has to happen while everything stands still. In the order that keeps the window short:
// clones, then the remainder of the tracked disks, then whole disks that have no tracker.
//
// Invariant: in here nothing is written to the repository but by disks that are read whole, whose
// repository was found not to lie on anything frozen.

/// The cut through all disks of a pass, prepared before the window opens.
struct Cut: ~Copyable {
  private let disks: [DiskPass]
  private let copy: PreCopy
  private let settings: CaptureSettings
  private let readers: [RemainderReader?]
  private var remainder: Remainder
  /// What every disk took so far, noted before it was read.
  private var marks: [WriteMark?]

  /// Everything that takes memory or time is done here; disks that need nothing held still are read.
  init(
    _ disks: [DiskPass], _ copy: PreCopy, _ settings: CaptureSettings
  ) throws(StrobeError) {
    self.disks = disks
    self.copy = copy
    self.settings = settings
    var readers: [RemainderReader?] = []
    var marks: [WriteMark?] = []
    for disk in disks {
      readers.append(disk.tracked == nil ? nil : try RemainderReader(disk, settings))
      guard case .live = disk.method else {
        marks.append(nil)
        continue
      }
      marks.append(try WriteMark(of: disk.plan.source))
      settings.progress.expectMore(disk.geometry.diskSize)
      try disk.run(settings)
    }
    self.readers = readers
    self.marks = marks
    let tracked = disks.filter { $0.tracked != nil }
    remainder = Remainder(bytes: tracked.reduce(0) { $0 + $1.geometry.diskSize })
  }

  /// Makes the cut.
  ///
  /// - Returns: false when more was written than fits the memory: the window has to be closed, the rest
  ///   copied live, and the cut tried again.
  mutating func make() throws(StrobeError) -> Bool {
    remainder.removeAll()
    for index in disks.indices {
      switch disks[index].method {
      case .clone, .underFreeze: marks[index] = try WriteMark(of: disks[index].plan.source)
      case .preCopy, .live: break
      }
    }
    for disk in disks {
      if case .clone(let clone) = disk.method { try clone.cut() }
    }
    guard copy.takeMarks() <= remainder.capacity else { return false }
    for index in disks.indices {
      try readers[index]?.read(disks[index].pending, disk: index, into: &remainder)
    }
    for disk in disks {
      guard case .underFreeze = disk.method else { continue }
      settings.progress.expectMore(disk.geometry.diskSize)
      try disk.run(settings)
    }
    return true
  }

  /// Why the disks may not show one instant, asked at the end of the cut: an empty list is the proof that
  /// from the last exchange, or from before a disk was read, until now nobody wrote to any of them.
  func doubts() throws(StrobeError) -> [String] {
    var doubts: [String] = []
    for (disk, mark) in zip(disks, marks) {
      switch disk.method {
      case .preCopy(let tracked):
        if tracked.wasWritten { doubts.append(Self.doubt(disk)) }
      // One clone is one instant by itself: writers of the file waited.
      case .clone where disks.count == 1: break
      case .clone, .underFreeze, .live:
        if try WriteMark(of: disk.plan.source) != mark { doubts.append(Self.doubt(disk)) }
      }
    }
    return doubts
  }

  private static func doubt(_ disk: DiskPass) -> String {
    "disk \(disk.name): \(disk.plan.source.path) was written to while it was read"
  }

  /// After the window: stores the remainder, reads the clones.
  consuming func finish() throws(StrobeError) {
    for index in disks.indices {
      let disk = disks[index]
      switch disk.method {
      case .preCopy:
        try remainder.store(disk: index, into: disk.capture, stop: settings.stop)
        disk.pending.removeAll()
      case .clone(let clone):
        settings.progress.expectMore(disk.geometry.diskSize)
        try disk.run(from: try clone.source(), settings)
      case .underFreeze, .live: break
      }
    }
  }
}

/// Reads a disk's part of the remainder with memory and requests that are there beforehand.
final class RemainderReader {
  private let geometry: ChunkGeometry
  private let requestSize: Int
  private var pipeline: ReadPipeline

  init(_ disk: DiskPass, _ settings: CaptureSettings) throws(StrobeError) {
    geometry = disk.geometry
    requestSize = max(512 << 10, disk.geometry.chunkSize)
    pipeline = try ReadPipeline(
      source: disk.plan.source, depth: 8, requestSize: requestSize, stop: settings.stop)
  }

  func read(
    _ chunks: ChunkBitmap, disk: Int, into remainder: inout Remainder
  ) throws(StrobeError) {
    try remainder.read(chunks, disk: disk, geometry, &pipeline, requestSize: requestSize)
  }
}
