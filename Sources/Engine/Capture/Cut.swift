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
final class Cut {
  private let disks: [DiskPass]
  private let copy: PreCopy
  private let settings: CaptureSettings
  private let readers: [RangeReader?]
  private let remainder: Remainder
  /// What every disk took so far, noted before it was read.
  private var marks: [WriteMark?]

  private init(
    _ disks: [DiskPass], _ copy: PreCopy, _ settings: CaptureSettings, readers: [RangeReader?],
    marks: [WriteMark?]
  ) {
    self.disks = disks
    self.copy = copy
    self.settings = settings
    self.readers = readers
    self.marks = marks
    remainder = Remainder(
      bytes: disks.reduce(0) { $0 + ($1.tracked == nil ? 0 : $1.geometry.diskSize) })
  }

  /// Prepares a cut: everything that takes memory or time is done here, and disks that need nothing held
  /// still are read.
  static func prepare(
    _ disks: [DiskPass], _ copy: PreCopy, _ settings: CaptureSettings
  ) throws(StrobeError) -> Cut {
    var readers: [RangeReader?] = []
    var marks: [WriteMark?] = []
    for disk in disks {
      readers.append(try reader(of: disk, copy, settings))
      marks.append(try readUnheld(disk, settings))
    }
    return Cut(disks, copy, settings, readers: readers, marks: marks)
  }

  // Kept out of `prepare`: Swift 6.3.1's optimiser fails on the two inlined into one loop.
  @inline(never)
  private static func reader(
    of disk: DiskPass, _ copy: PreCopy, _ settings: CaptureSettings
  ) throws(StrobeError) -> RangeReader? {
    guard disk.tracked != nil else { return nil }
    _ = try copy.scratch(of: disk)
    return try RangeReader(disk.plan.source, stop: settings.stop)
  }

  /// - Returns: what a disk had taken before it was read; nil for one that is read in the cut.
  @inline(never)
  private static func readUnheld(
    _ disk: DiskPass, _ settings: CaptureSettings
  ) throws(StrobeError) -> WriteMark? {
    guard case .live = disk.method else { return nil }
    let mark = try WriteMark(of: disk.plan.source)
    settings.progress.expectMore(disk.geometry.diskSize)
    try disk.run(settings)
    return mark
  }

  /// Makes the cut.
  ///
  /// - Returns: false when more was written than fits the memory: the window has to be closed, the rest
  ///   copied live, and the cut tried again.
  func make() throws(StrobeError) -> Bool {
    remainder.removeAll()
    for index in disks.indices {
      switch disks[index].method {
      case .clone, .underFreeze: marks[index] = try WriteMark(of: disks[index].plan.source)
      case .preCopy, .live, .hypervisor: break
      }
    }
    for disk in disks {
      if case .clone(let clone) = disk.method { try clone.cut() }
    }
    copy.takeMarks()
    guard try readRemainder() else { return false }
    for disk in disks {
      guard case .underFreeze = disk.method else { continue }
      settings.progress.expectMore(disk.geometry.diskSize)
      try disk.run(settings)
    }
    return true
  }

  /// - Returns: false when there is no room for it.
  private func readRemainder() throws(StrobeError) -> Bool {
    var pieces: [[Range<Int>]] = []
    for disk in disks {
      guard let marks = disk.pending, let scratch = disk.scratch else {
        pieces.append([])
        continue
      }
      pieces.append(scratch.missing(marks, limit: RangeReader.largestRange))
    }
    let bytes = pieces.reduce(0) { sum, of in of.reduce(sum) { $0 + $1.count } }
    guard bytes <= remainder.capacity else { return false }
    for (index, reader) in readers.enumerated() {
      try unsafe reader?.read(pieces[index]) { (bytes, offset) throws(StrobeError) in
        unsafe remainder.append(bytes, disk: index, at: offset)
      }
      disks[index].capture.count(read: pieces[index].reduce(0) { $0 + $1.count })
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
      case .hypervisor: break
      case .clone, .underFreeze, .live:
        guard try WriteMark(of: disk.plan.source) != mark else { continue }
        if disk.plan.source.kind != .network {
          doubts.append(Self.doubt(disk))
        } else if !disk.isIdleByWord {
          doubts.append(Self.unwatchable(disk))
        }
      }
    }
    return doubts
  }

  private static func unwatchable(_ disk: DiskPass) -> String {
    "disk \(disk.name): an NBD server doesn't tell whether \(disk.plan.source.path) was written to while it "
      + "was read (--idle \(disk.name) says that it wasn't)"
  }

  private static func doubt(_ disk: DiskPass) -> String {
    "disk \(disk.name): \(disk.plan.source.path) was written to while it was read"
  }

  /// After the window: stores the remainder, reads the clones.
  func finish() throws(StrobeError) {
    for index in disks.indices {
      let disk = disks[index]
      switch disk.method {
      case .preCopy:
        try storeCopied(disk, index)
      case .clone(let clone):
        settings.progress.expectMore(disk.geometry.diskSize)
        try disk.run(from: try clone.source(), settings)
      case .underFreeze, .live, .hypervisor: break
      }
    }
  }

  /// Stores what was only copied so far, with what was read at the cut.
  private func storeCopied(_ disk: DiskPass, _ index: Int) throws(StrobeError) {
    guard let scratch = disk.scratch else { return }
    try unsafe remainder.forEach(disk: index) { (bytes, offset) throws(StrobeError) in
      try unsafe scratch.write(bytes, at: offset)
      scratch.insert([offset..<(offset + bytes.count)])
    }
    guard !scratch.whole.isEmpty else { return }
    settings.progress.expectMore(disk.capture.byteCount(of: scratch.whole))
    let read = disk.capture.readBytes
    try disk.run(
      candidates: scratch.whole, from: try scratch.source(inPlaceOf: disk.plan.source), settings)
    // What was read from the copy was counted when it was copied.
    disk.capture.count(read: read - disk.capture.readBytes)
    try scratch.check()
  }
}
