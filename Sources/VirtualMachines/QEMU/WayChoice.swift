import Platform

/// How the guest's writes are kept apart from what is read.
enum QEMUWay: Equatable {
  /// A filter goes below each disk's raw node, at one instant. The guest runs.
  case reopen
  /// A filter goes above each disk while the guest's processors stand still; a single disk needs no standstill.
  case filter
  /// A job of QEMU copies what the guest overwrites. The guest runs.
  ///
  /// - Parameter yields: whether running out of space ends the job; otherwise it stops the guest.
  case job(yields: Bool)

  var name: String {
    switch self {
    case .reopen: "reopen"
    case .filter: "copy-before-write"
    case .job: "backup-job"
    }
  }
}

/// Chooses the way that costs the guest least, of those that can't harm it.
struct WayChoice {
  /// What a filter or a job that gives way wants of free space, at least.
  static let leastSpace = 64 << 20

  let features: QEMUFeatures
  let disks: [QEMUDisk]
  let request: GuestPassRequest
  let monitor: QMPConnection

  func way() throws(StrobeError) -> QEMUWay {
    let free = try ScratchFolder.freeSpace(request.scratchFolder)
    if features.canReopen && disks.allSatisfy({ $0.reopened != nil }) {
      try checkSpace(free)
      return .reopen
    }
    if try features.canBreakBackups(monitor) {
      try checkSpace(free)
      return .job(yields: true)
    }
    if canFilter && (disks.count == 1 || request.mayPause) {
      try checkSpace(free)
      return .filter
    }
    let worst = disks.reduce(0) { $0 + ScratchImage.overlayLimit(size: $1.disk.size) }
    if free >= worst { return .job(yields: false) }
    throw StrobeError(
      .refused,
      "QEMU \(features.version) would stop the guest when the scratch space ran out: "
        + "\(request.scratchFolder) has \(free >> 20) MiB free, "
        + "and the disks could need \(worst >> 20) MiB",
      advice: (canFilter ? "allow that the guest is paused for some milliseconds, " : "")
        + (features.hasSoundViews
          ? "give each disk a raw node of its own name above its image, " : "")
        + "or name a larger scratch folder")
  }

  /// A device can be given another node while the guest stands still.
  private var canFilter: Bool {
    features.hasFilters && features.hasProcessors && disks.allSatisfy { $0.device != nil }
  }

  /// What runs out breaks only the pass; one that would surely break isn't begun.
  private func checkSpace(_ free: Int) throws(StrobeError) {
    let total = disks.reduce(0) { $0 + $1.disk.size }
    let least = min(total, max(Self.leastSpace, total / 100))
    guard free >= least else {
      throw StrobeError(
        .refused,
        "the scratch folder \(request.scratchFolder) has \(free >> 20) MiB free, "
          + "less than \(least >> 20) MiB",
        advice: "free space there, or name another folder")
    }
  }
}
