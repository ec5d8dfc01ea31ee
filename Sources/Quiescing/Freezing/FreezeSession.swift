import Glibc
package import Platform
import Synchronization

/// File systems, or guests, that are frozen together and thawed together, under the eyes of a guardian.
///
/// ```swift
/// let session = try FreezeSession(fileSystems, postThaw: hook, options)
/// session.hooksStarted()             // then run pre-freeze
/// try session.synchronize()
/// let results = try session.freeze()
/// …                                  // the cut; stops when session.isLost
/// let window = try session.thaw()
/// session.hooksFinished()            // after post-thaw has run
/// ```
///
/// Its methods are called by one thread; `isLost` and `abandon()` by any. Letting go of it thaws.
package final class FreezeSession: Sendable {
  package let fileSystems: [FileSystemOnDisk]
  package let guests: [GuestHold]
  /// What the guardian could not do for its own safety.
  package let warnings: [String]

  /// `fileSystems`, or `guests` in the order in which they are frozen.
  private let targets: [FreezeTarget]
  let places: [FreezePlace]
  /// For each of `targets` its index in `places`, or why it has none.
  private let placeIndex: [Result<Int, FreezePlace.Absence>]
  let link: GuardianLink
  let options: FreezeOptions
  private let owesPostThaw = Atomic<Bool>(false)
  private let hasBegun = Atomic<Bool>(false)

  /// Opens the mount points, takes the records' locks and starts the guardian. Nothing is frozen yet.
  ///
  /// - Parameters:
  ///   - fileSystems: innermost first, as ``FileSystemsOnDisks`` finds them; may be empty.
  ///   - guests: instead of file systems of this host. Their agents are spoken to here already, so that one that
  ///     hangs costs its time limit before anything is frozen.
  ///   - postThaw: what the guardian runs if the engine dies between `hooksStarted` and `hooksFinished`.
  /// - Throws: `busy` when another pass holds one of them, `refused` when the records would lie on one,
  ///   `usage` when there are file systems and guests, `system`, `cancelled`.
  package init(
    _ fileSystems: [FileSystemOnDisk], guests: [GuestHold] = [], postThaw: HookCommand? = nil,
    _ options: FreezeOptions
  ) throws(StrobeError) {
    self.fileSystems = fileSystems
    self.guests = guests
    self.options = options
    // Whoever speaks to a guest allocates memory: not while file systems of this host are frozen (G4).
    guard fileSystems.isEmpty || guests.isEmpty else {
      throw StrobeError(.usage, "file systems of this host can't be frozen together with guests")
    }
    targets = Self.ordered(fileSystems, guests)
    try Self.prepareFolder(options.recordFolder, fileSystems)
    let records = try Self.records(targets, options)
    (places, placeIndex) = try Self.open(targets, records, options)
    let configuration = GuardianConfiguration(
      places: places.map {
        .init(recordPath: $0.record.path, isStale: $0.record.isStale, kind: $0.kind)
      }, maxFreezeMilliseconds: options.maxFreezeMilliseconds, postThaw: postThaw)
    do throws(StrobeError) {
      let (process, socket, warnings) = try GuardianLaunch.start(
        options.guardianExecutable, configuration, places: places.map(\.descriptor),
        records: places.map { $0.record.file.number })
      link = GuardianLink(
        process, socket: socket, holds: places.map(\.hold),
        maxFreezeMilliseconds: options.maxFreezeMilliseconds)
      try link.start()
      self.warnings = warnings
    } catch {
      for place in places where !place.record.isStale { place.record.remove() }
      throw error
    }
  }

  deinit {
    abandon()
    link.finish()
    // The guardian ends at once, unless it runs the post-thaw hook now or a call hangs.
    if !owesPostThaw.load(ordering: .relaxed) {
      _ = link.state.wait(until: Clock.after(milliseconds: 5_000)) { $0.isEnded ? true : nil }
    }
  }

  /// Guests by the step in which they are frozen; those of one step as they were given.
  private static func ordered(
    _ fileSystems: [FileSystemOnDisk], _ guests: [GuestHold]
  ) -> [FreezeTarget] {
    let steps = Set(guests.map(\.kind.step)).sorted()
    let inOrder = steps.flatMap { step in guests.filter { $0.kind.step == step } }
    return fileSystems.map { .fileSystem($0) } + inOrder.map { .guest($0) }
  }

  /// Opens what can be opened; the record of what can't be goes, for nothing is going to be frozen there.
  private static func open(
    _ targets: [FreezeTarget], _ records: [FreezeRecord], _ options: FreezeOptions
  ) throws(StrobeError) -> ([FreezePlace], [Result<Int, FreezePlace.Absence>]) {
    var places: [FreezePlace] = []
    var indices: [Result<Int, FreezePlace.Absence>] = []
    do throws(StrobeError) {
      for (target, record) in zip(targets, records) {
        switch try FreezePlace.open(target, record, stop: options.stop) {
        case .success(let place):
          indices.append(.success(places.count))
          places.append(place)
        case .failure(let absence):
          if !record.isStale { record.remove() }
          indices.append(.failure(absence))
        }
      }
    } catch {
      for record in records where !record.isStale { record.remove() }
      throw error
    }
    return (places, indices)
  }

  private static func prepareFolder(
    _ folder: String, _ fileSystems: [FileSystemOnDisk]
  ) throws(StrobeError) {
    if let collision = try SelfDependence(fileSystems).collision(of: [folder]) {
      throw StrobeError(
        .refused, "\(folder) lies on \(collision.mountPoint), which is to be frozen",
        advice: "mount a tmpfs at /run")
    }
    try makeDirectories(folder)
  }

  /// The locks, taken in the order of their names: two passes that want the same can't wait for each
  /// other.
  private static func records(
    _ targets: [FreezeTarget], _ options: FreezeOptions
  ) throws(StrobeError) -> [FreezeRecord] {
    let deadline = Clock.after(milliseconds: options.maxFreezeMilliseconds)
    let paths = targets.map { $0.recordPath(in: options.recordFolder) }
    guard Set(paths).count == paths.count else {
      throw StrobeError(.usage, "a guest is to be frozen twice")
    }
    let order = targets.indices.sorted { paths[$0] < paths[$1] }
    var records: [Int: FreezeRecord] = [:]
    do throws(StrobeError) {
      for index in order {
        records[index] = try FreezeRecord(
          of: targets[index], in: options.recordFolder, until: deadline, stop: options.stop)
      }
    } catch {
      for record in records.values where !record.isStale { record.remove() }
      throw error
    }
    return targets.indices.compactMap { records[$0] }
  }

  // MARK: hooks

  /// From now on the guardian runs the post-thaw hook if the engine dies.
  package func hooksStarted() {
    owesPostThaw.store(true, ordering: .relaxed)
    link.send(GuardianMessage(.hooksStarted))
  }

  /// The post-thaw hook has run.
  package func hooksFinished() {
    owesPostThaw.store(false, ordering: .relaxed)
    link.send(GuardianMessage(.hooksFinished))
  }

  /// The process group of the hook that runs, for ``HookRunner``; 0: none. The guardian ends it before it
  /// runs the post-thaw hook in the engine's place.
  package func hookProcess(_ group: Int32) {
    link.send(GuardianMessage(.hookProcess, code: group))
  }

  // MARK: freeze and thaw

  /// Writes out what waits in memory, again until that is quick, so that the freeze itself is short.
  package func synchronize() throws(StrobeError) {
    for place in places { try place.synchronize() }
  }

  /// Freezes all, innermost first, those of the same depth at once; of guests the file systems first, then the
  /// processors. The deadline counts from here.
  ///
  /// - Returns: what came of each: in the order of `fileSystems`, or of `guests` with agents first.
  /// - Throws: when the guardian is lost or the deadline passes; everything is being thawed then.
  package func freeze() throws(StrobeError) -> [FreezeResult] {
    precondition(!hasBegun.exchange(true, ordering: .relaxed), "a session freezes once")
    for place in places {
      try place.record.arm(place.target)
      place.hold.expectFreeze()
    }
    link.state.update { $0.begin = Clock.now() }
    link.send(GuardianMessage(.begin))
    var results = targets.indices.map { result(at: $0) }
    for level in levels {
      // At once: most of a freeze is waiting for the kernel's own writes.
      for index in level { if case .success(let place) = placeIndex[index] { try request(place) } }
      for index in level {
        if case .success(let place) = placeIndex[index] {
          let (outcome, explanation) = try outcome(of: place)
          results[index] = FreezeResult(
            target: targets[index], outcome: outcome, explanation: explanation,
            isLeftBehind: places[place].record.isStale)
        }
      }
    }
    if isLost { throw lostError() }
    return results
  }

  /// What is known before anything is frozen.
  private func result(at index: Int) -> FreezeResult {
    var absence = FreezePlace.Absence(outcome: .vanished, explanation: nil, isLeftBehind: false)
    if case .failure(let known) = placeIndex[index] { absence = known }
    return FreezeResult(
      target: targets[index], outcome: absence.outcome, explanation: absence.explanation,
      isLeftBehind: absence.isLeftBehind)
  }

  /// The targets of one step: of file systems those of one depth, innermost first, none of which lies on another
  /// of the same.
  private var levels: [[Int]] {
    var levels: [[Int]] = []
    for index in targets.indices {
      if let last = levels.last?.last, targets[last].step == targets[index].step {
        levels[levels.count - 1].append(index)
      } else {
        levels.append([index])
      }
    }
    return levels
  }

  private func request(_ index: Int) throws(StrobeError) {
    let isGone = link.state.update { state in
      // Before the request is sent (L2): a guardian that dies at once may have served it.
      if !state.isEnded && !state.guardianDied { state.isRequested[index] = true }
      return !state.isRequested[index]
    }
    if isGone { throw lostError() }
    link.send(GuardianMessage(.freeze, index: index))
  }

  private func outcome(of index: Int) throws(StrobeError) -> (FreezeOutcome, String?) {
    let answer = link.state.wait { state in
      if let answer = state.answers[index] { return (answer.code, answer.time, state.texts[index]) }
      return state.hasDeadlineStruck || state.guardianDied ? (ECANCELED, 0, []) : nil
    }
    guard let (code, time, text) = answer, code != ECANCELED else { throw lostError() }
    let explanation = text.isEmpty ? nil : String(decoding: text, as: UTF8.self)
    switch code {
    case 0: return (.frozen(milliseconds: Double(time) / 1e6), explanation)
    case EOPNOTSUPP, ENOTTY, ENOSYS: return (.unsupported, explanation)
    case EBUSY: return (.alreadyFrozen, explanation)
    default: return (.failed(errno: code), explanation)
    }
  }

  /// Whether the freeze surely doesn't hold any more: the deadline struck, or the guardian died. A cut
  /// that goes on is in vain.
  package var isLost: Bool { link.isLost.load(ordering: .relaxed) }

  /// For tests: the guardian's process.
  package var guardianProcess: Int32 { link.guardianProcess }
}
