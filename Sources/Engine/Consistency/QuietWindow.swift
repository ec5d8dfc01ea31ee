import BlockDevices
import Glibc
import Platform
import Quiescing
import SnapshotRepository

// The window in which everything stands still:
//
//   guardian → (syncfs, copy live) → pre-freeze hook → (syncfs, copy live) → freeze all, or the guest → cut → thaw all
//   → post-thaw hook
//
// Invariants:
// - Whatever happens in between, all that was frozen is thawed and `post-thaw` runs if `pre-freeze` was
//   started: by us, or by the guardian when we are gone.
// - The cut counts only if every freeze still held when it was complete.

/// Holds file systems and applications still while a cut is made.
final class QuietWindow {
  let fileSystems: [FileSystemOnDisk]
  private let guests: [GuestHold]
  private(set) var warnings: [String] = []
  private let disks: [DiskPass]
  private let context: PassContext
  private let settings: CaptureSettings
  private var hookRun: HookRun
  /// As it was when the file systems were chosen.
  private let mountTable: [UInt8]
  private static let mountTablePath = "/proc/self/mountinfo"

  /// What the last window came to.
  private(set) var held = ConsistencyAssessment.Held()
  private(set) var frozen: [FrozenFileSystem] = []
  private(set) var milliseconds: Double?
  /// Whether the guest was frozen or stopped.
  private var guestIsStill = false
  /// Why it held less still than was asked for.
  private(set) var weaknesses: [String] = []

  init(
    _ disks: [DiskPass], _ context: PassContext, _ settings: CaptureSettings, guests: [GuestHold]
  ) throws(StrobeError) {
    self.disks = disks
    self.guests = guests
    self.context = context
    self.settings = settings
    hookRun = HookRun(context)
    mountTable = try readFile(Self.mountTablePath)
    // What a guest uses is not mounted here.
    fileSystems =
      guests.isEmpty
      ? try FreezeSelection.select(
        context.options.freezing, disks: disks.map(\.plan.source.facts)) : []
    try FreezeSelection.refuseOwn(fileSystems, context)
    for system in fileSystems where system.sources.isEmpty {
      warnings.append("\(system.mountPoint) lies on none of the disks; it is frozen all the same")
    }
    try hookRun.check()
  }

  /// Whether there is anything to hold still.
  var isNeeded: Bool {
    !fileSystems.isEmpty || !guests.isEmpty || context.options.hooks.areThere
  }

  /// Whether anything was mounted or unmounted since the file systems were chosen; cheap enough for the
  /// window.
  func haveMountsChanged() throws(StrobeError) -> Bool {
    try readFile(Self.mountTablePath) != mountTable
  }

  var hookRecords: [HookRecord] { hookRun.records }

  /// What will be held still if all goes well.
  var expected: ConsistencyAssessment.Held {
    ConsistencyAssessment.Held(
      superblocks: Set(fileSystems.map(\.device)), members: Set(fileSystems.flatMap(\.members)),
      applicationsRest: hookRun.promiseRest,
      programsAreStill: context.options.hooks.preFreeze != nil || !guests.isEmpty)
  }

  private var freezesGuest: Bool { guests.contains(where: \.isAgent) }

  private var guestHooksBringRest: Bool { context.collection.guest?.hooksBringRest == true }

  /// The consistency that was asked for.
  var wanted: Consistency {
    if hookRun.promiseRest || freezesGuest && guestHooksBringRest { return .applicationConsistent }
    return fileSystems.isEmpty && !freezesGuest ? .crashConsistent : .fileSystemConsistent
  }

  /// Runs `cut` in a window.
  ///
  /// - Parameter before: copies what was written so far; runs while nothing is frozen yet.
  func hold(
    before: () throws(StrobeError) -> Void = { () throws(StrobeError) in },
    _ cut: () throws(StrobeError) -> Void
  ) throws(StrobeError) {
    guard isNeeded else {
      try before()
      try cut()
      return
    }
    held = ConsistencyAssessment.Held()
    (frozen, weaknesses, milliseconds, guestIsStill) = ([], [], nil, false)
    guard let session = try begin() else {
      try before()
      try cut()
      return
    }
    for warning in session.warnings where !warnings.contains(warning) { warnings.append(warning) }
    settings.watch.begin(session)
    defer {
      session.abandon()
      settings.watch.end()
    }
    try settle(session, before)
    do throws(StrobeError) {
      try hookRun.preFreeze(session, stop: settings.stop)
      // What the application wrote to come to rest.
      if context.options.hooks.preFreeze != nil { try settle(session, before) }
      // For whoever looks for writers in the window; after it the post-thaw hook has a say, too.
      noteHooks()
      // What was written since the last flush began.
      try before()
      try holdFrozen(session, cut)
    } catch {
      session.abandon()
      try? hookRun.postThaw(session)
      throw explained(error, session)
    }
    try hookRun.postThaw(session)
    noteHooks()
    weaknesses += hookRun.weaknesses
  }

  private func noteHooks() {
    let isGuestAtRest = held.guestIsFrozen && guestHooksBringRest
    held.applicationsRest = hookRun.promiseRest && hookRun.succeeded || isGuestAtRest
    held.programsAreStill = hookRun.succeeded || guestIsStill
  }

  /// - Returns: nil where freezing is not permitted and was not insisted on.
  private func begin() throws(StrobeError) -> FreezeSession? {
    do throws(StrobeError) {
      return try FreezeSession(
        fileSystems, guests: guests,
        postThaw: hookRun.postThaw(after: context.options.maxFreezeMilliseconds),
        options)
    } catch {
      let mayGoOn =
        context.options.freezing == .automatic && !context.options.hooks.areThere
        && guests.allSatisfy(\.isAgent)
      guard mayGoOn, error.errno == EACCES || error.errno == EPERM else { throw error }
      weaknesses.append("nothing was frozen: \(error.message)")
      return nil
    }
  }

  /// Flushes and copies what that wrote, again until both together are quick: whatever is dirtied after the
  /// last flush is written by the freeze itself, and read in the window.
  private func settle(
    _ session: FreezeSession, _ before: () throws(StrobeError) -> Void
  ) throws(StrobeError) {
    var last = Double.infinity
    for _ in 0..<Self.settleLimit {
      let start = monotonicSeconds()
      try session.synchronize()
      try before()
      let seconds = monotonicSeconds() - start
      if seconds < Self.quick || seconds > last * 0.8 { return }
      last = seconds
    }
  }

  private static let settleLimit = 10
  /// Seconds that a flush and the copy of what it wrote may take.
  private static let quick = 0.03

  private var options: FreezeOptions {
    var options = FreezeOptions()
    options.maxFreezeMilliseconds = context.options.maxFreezeMilliseconds
    options.guardianExecutable = context.options.guardianExecutable
    options.stop = settings.stop
    return options
  }

  private func holdFrozen(
    _ session: FreezeSession, _ cut: () throws(StrobeError) -> Void
  ) throws(StrobeError) {
    for result in try session.freeze() { try note(result) }
    // For whoever looks for writers in the window: a guest stands still from now on.
    noteHooks()
    let start = monotonicSeconds()
    try cut()
    let seconds = monotonicSeconds() - start
    let window = try session.thaw()
    guard window.isHeld else {
      throw StrobeError(
        .busy,
        "the freeze did not hold until the cut was complete: \(window.brokenBy ?? "unknown"); "
          + "everything is thawed, nothing was committed", advice: "run the command again")
    }
    // Where only hooks hold anything still, it is the time that they had to.
    let isHeldByHooks = context.options.hooks.areThere
    let isHeld = !frozen.isEmpty || guestIsStill
    milliseconds = isHeld ? window.milliseconds : isHeldByHooks ? seconds * 1000 : nil
  }

  private func note(_ result: FreezeResult) throws(StrobeError) {
    let why: String
    switch (result.outcome, result.target) {
    case (.frozen(let milliseconds), .fileSystem(let system)):
      held.superblocks.insert(system.device)
      held.members.formUnion(system.members)
      frozen.append(
        FrozenFileSystem(
          mountPoint: system.mountPoint, fileSystem: system.fileSystem,
          freezeMilliseconds: milliseconds))
      return
    case (.frozen(let milliseconds), .guest(let guest)):
      note(guest, milliseconds)
      return
    case (.alreadyFrozen, .guest(let guest)) where !guest.isAgent && !result.isLeftBehind:
      // Whoever stopped it lets it go; the cut looks whether it stood still.
      guestIsStill = true
      return
    case (.unsupported, .fileSystem(let system)): why = "\(system.fileSystem) can't be frozen"
    case (.unsupported, .guest): why = "its agent has no command for that"
    case (.alreadyFrozen, _):
      why =
        result.isLeftBehind
        ? "an earlier snapshot left it frozen when it was killed; thaw it with: strobe thaw"
        : "it is frozen already, by somebody else"
    case (.vanished, .fileSystem): why = "it was unmounted or mounted over"
    case (.vanished, .guest): why = "nobody listens at its socket"
    case (.failed(let code), _): why = unsafe String(cString: strerror(code))
    }
    let explanation = result.explanation.map { " (\($0))" } ?? ""
    try refuseOrWeaken(result, "\(result.target.title) was not frozen: \(why)\(explanation)")
  }

  private func note(_ guest: GuestHold, _ milliseconds: Double) {
    guestIsStill = true
    guard guest.isAgent else { return }
    held.guestIsFrozen = true
    frozen.append(
      FrozenFileSystem(
        mountPoint: "guest", fileSystem: "guest agent \(guest.socketPath)",
        freezeMilliseconds: milliseconds))
  }

  private func refuseOrWeaken(_ result: FreezeResult, _ text: String) throws(StrobeError) {
    if case .guest(let guest) = result.target {
      // Processors that were not stopped: the way that was chosen needs them to be.
      guard context.options.freezing == .guest || !guest.isAgent else {
        weaknesses.append(text)
        return
      }
      throw StrobeError(
        .refused, "\(text); nothing was committed",
        advice: guest.isAgent
          ? "use --freeze auto, which goes on without" : "look at what the guest's monitor says")
    }
    if case .mountPoints = context.options.freezing {
      throw StrobeError(
        .refused, "\(text); nothing was committed",
        advice: "leave it out, or use --freeze auto, which goes on without")
    }
    weaknesses.append(text)
  }

  /// A cut that was told to stop because its freeze was lost failed for that reason.
  private func explained(_ error: StrobeError, _ session: FreezeSession) -> StrobeError {
    guard session.isLost, error.reason == .cancelled || error.errno == ETIMEDOUT else {
      return error
    }
    let isReadWhole = disks.contains { disk in
      if case .underFreeze = disk.method { true } else { false }
    }
    return StrobeError(
      .busy,
      "the freeze was given up: \(session.lossReason ?? "the guardian ended"); everything is thawed, "
        + "nothing was committed",
      advice: "allow more with --max-freeze (now \(context.options.maxFreezeMilliseconds) ms), or "
        + (isReadWhole
          ? "track the writes with strobe track start"
          : "take the point when less is written: most of a freeze is the kernel's own flush"))
  }
}
