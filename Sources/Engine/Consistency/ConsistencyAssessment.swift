import BlockDevices
import Platform
import SnapshotRepository

/// What a pass achieved, from what was proved.
struct ConsistencyAssessment {
  /// What was held still for the cut.
  struct Held {
    /// The superblocks that were frozen until the cut was complete.
    var superblocks: Set<DeviceNumber> = []
    /// The devices that these are made of.
    var members: Set<DeviceNumber> = []
    /// Whether somebody who knows said that the applications' data is at rest: hooks that ran and all succeeded.
    var applicationsRest = false
    /// Whether programs that use the disks are held still: by such hooks, or because they are a guest that
    /// stands still.
    var programsAreStill = false
    /// Whether a guest's own file systems were frozen.
    var guestIsFrozen = false
  }

  private let disks: [DiskPass]
  private var doubts: [String] = []
  private var writers: [String] = []
  /// Whether something that a freeze was to hold still was not; a program that uses an image needs hooks.
  private(set) var hasUnfrozen = false

  init(_ disks: [DiskPass]) { self.disks = disks }

  /// Looks for who may write to the disks; before the cut and after it.
  mutating func lookForWriters(_ held: Held) throws(StrobeError) {
    for disk in disks {
      for (found, isProgram) in try Self.writers(disk.plan, held) where !writers.contains(found) {
        writers.append(found)
        if !isProgram { hasUnfrozen = true }
        if !disk.provesItself { doubts.append(found) }
      }
    }
  }

  /// Adds what the cut could not prove.
  mutating func add(doubts found: [String]) {
    for doubt in found where !doubts.contains(doubt) { doubts.append(doubt) }
  }

  /// The level, and why it is no better.
  func level(_ held: Held) -> (Consistency, reasons: [String]) {
    if !doubts.isEmpty { return (.inconsistent, doubts + writers.filter { !doubts.contains($0) }) }
    if !writers.isEmpty { return (.crashConsistent, writers) }
    if held.applicationsRest { return (.applicationConsistent, []) }
    let isFrozen = !held.superblocks.isEmpty || held.guestIsFrozen
    return (isFrozen ? .fileSystemConsistent : .crashConsistent, [])
  }

  private static func writers(
    _ plan: DiskPlan, _ held: Held
  ) throws(StrobeError) -> [(text: String, isProgram: Bool)] {
    // Elsewhere: the cut says what is known.
    guard let facts = plan.source.facts else { return [] }
    let use = try DiskUse(of: facts, path: plan.source.filePath)
    var found: [(text: String, isProgram: Bool)] = use.mounts.filter {
      $0.isWritable && !held.superblocks.contains($0.device)
    }.map {
      (
        "disk \(plan.name): \(plan.source.path) is mounted read-write at \($0.mountPoint) and was not frozen",
        false
      )
    }
    if found.count > 1 { found.removeLast(found.count - 1) }
    for writer in use.otherWriters where !isHeld(writer, held) {
      found.append(
        (
          "disk \(plan.name): \(plan.source.path): \(writer.text), and it was not frozen",
          writer.kind == .program
        ))
    }
    return found
  }
}

extension ConsistencyAssessment {
  /// Hooks and a guest that stands still answer for programs that write to an image, not for the kernel: a device that is held exclusively
  /// is most likely mounted elsewhere.
  private static func isHeld(_ writer: DiskUse.Writer, _ held: Held) -> Bool {
    switch writer.kind {
    case .swap: false
    case .fileSystemMember: held.members.contains(writer.device)
    case .program: held.programsAreStill
    case .holder: held.members.contains(writer.device)
    }
  }
}

extension DiskPass {
  /// Whether the cut itself proves that nobody wrote, so that somebody who might have doesn't matter.
  fileprivate var provesItself: Bool {
    switch method {
    case .preCopy, .clone, .hypervisor: true
    case .underFreeze, .live: false
    }
  }
}
