import BlockDevices
import ChangeDetection
import Platform
import Quiescing
import SnapshotRepository

// The order: find what to freeze → copy live → hooks → freeze all → cut → thaw all → hooks → store what
// the cut kept in memory.

/// Captures all disks of a pass at one instant, as far as that can be had.
final class PointCapture {
  /// How often the cut is made again, because too much was written before it or during it.
  private static let attemptLimit = 4

  let disks: [DiskPass]
  private let context: PassContext
  private let settings: CaptureSettings
  private(set) var outcome = CaptureOutcome()

  init(_ disks: [DiskPass], _ context: PassContext, _ settings: CaptureSettings) {
    self.disks = disks
    self.context = context
    self.settings = settings
  }

  func run() throws(StrobeError) {
    let holds = try GuestHolds(context)
    outcome.warnings += holds.warnings
    let window = try QuietWindow(disks, context, settings, guests: holds.holds)
    defer { holds.release() }
    var planning = CutPlanning(
      disks, frozen: window.fileSystems, hasGuests: !holds.holds.isEmpty, context.options)
    try planning.choose()
    try planning.checkEstimate(stop: settings.stop)
    outcome.warnings += planning.warnings
    let copy = PreCopy(
      disks: disks, parent: context.parent, collection: context.collection, settings: settings)
    outcome.warnings += try copy.copy()
    try preScan(window)
    var assessment = ConsistencyAssessment(disks)
    try assessment.lookForWriters(window.expected)
    let doubts = try makeCut(window, copy, &assessment)
    assessment.add(doubts: doubts)
    try assessment.lookForWriters(window.held)
    (outcome.level, outcome.reasons) = assessment.level(window.held)
    outcome.reasons += window.weaknesses
    for disk in disks where disk.isIdleByWord && disk.plan.source.kind == .network {
      outcome.reasons.append("disk \(disk.name): idle by the caller's word")
    }
    outcome.warnings += window.warnings
    // Whoever didn't say "freeze none" is told of what wasn't frozen.
    let isSurprise = context.options.freezing != .none && assessment.hasUnfrozen
    outcome.isWeaker = isSurprise || outcome.level.isWeaker(than: window.wanted)
    outcome.frozen = window.frozen
    outcome.hooks = window.hookRecords
    outcome.windowMilliseconds = window.milliseconds
  }

  /// Disks that will be read under the freeze are stored before it, so that the window takes a read and
  /// a comparison, not compression and writes. Also when the audit found their tracker lying.
  private func preScan(_ window: QuietWindow) throws(StrobeError) {
    for disk in disks {
      guard case .underFreeze = disk.method else { continue }
      guard window.isNeeded else {
        disk.method = .live
        continue
      }
      settings.progress.expectMore(disk.geometry.diskSize)
      try disk.run(settings)
    }
  }

  private func makeCut(
    _ window: QuietWindow, _ copy: PreCopy, _ assessment: inout ConsistencyAssessment
  ) throws(StrobeError) -> [String] {
    let cut = try Cut.prepare(disks, copy, settings)
    for attempt in 1...Self.attemptLimit {
      var isComplete = false
      var doubts: [String] = []
      try window.hold(before: copy.catchUp) { () throws(StrobeError) in
        outcome.instant = .now
        isComplete = try cut.make()
        guard isComplete else { return }
        doubts = try cut.doubts()
        // What was mounted since the file systems were looked for, and may be gone again afterwards.
        if window.isNeeded, try window.haveMountsChanged() {
          try assessment.lookForWriters(window.held)
        }
      }
      // Without a freeze a quiet moment may come.
      let isLast = attempt == Self.attemptLimit
      if isComplete && (doubts.isEmpty || window.isNeeded || isLast) {
        try cut.finish()
        return doubts
      }
      if !isComplete && isLast { break }
    }
    throw StrobeError(
      .busy,
      "more was written to the disks in the moment before the freeze than \(Remainder.limit >> 20) MiB of "
        + "memory hold, \(Self.attemptLimit) times", advice: "try again when there is less load")
  }
}

/// What a capture came to.
struct CaptureOutcome {
  /// The instant that the point shows.
  var instant = Timestamp.now
  var level = Consistency.inconsistent
  var reasons: [String] = []
  /// Whether it is less than what was to be had by what was asked for.
  var isWeaker = false
  var windowMilliseconds: Double?
  var frozen: [FrozenFileSystem] = []
  var hooks: [HookRecord] = []
  var warnings: [String] = []
  /// The guest, when there is one.
  var machine: MachineRecord?
}
