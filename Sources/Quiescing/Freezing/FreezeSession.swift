import CLinux
import Glibc
package import Platform
import Synchronization

/// File systems that are frozen together and thawed together, under the eyes of a guardian.
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
  /// What the guardian could not do for its own safety.
  package let warnings: [String]

  /// A file system that could be opened: it has an index at the guardian.
  struct Place: Sendable {
    let fileSystem: FileSystemOnDisk
    let mount: MountHandle
    let record: FreezeRecord
  }

  let places: [Place]
  /// For each of `fileSystems` its index in `places`; nil: vanished.
  private let placeIndex: [Int?]
  let link: GuardianLink
  let options: FreezeOptions
  private let owesPostThaw = Atomic<Bool>(false)
  private let hasBegun = Atomic<Bool>(false)

  /// Opens the mount points, takes the records' locks and starts the guardian. Nothing is frozen yet.
  ///
  /// - Parameters:
  ///   - fileSystems: innermost first, as ``FileSystemsOnDisks`` finds them; may be empty.
  ///   - postThaw: what the guardian runs if the engine dies between `hooksStarted` and `hooksFinished`.
  /// - Throws: `busy` when another pass holds one of them, `refused` when the records would lie on one,
  ///   `system`, `cancelled`.
  package init(
    _ fileSystems: [FileSystemOnDisk], postThaw: HookCommand? = nil, _ options: FreezeOptions
  ) throws(StrobeError) {
    self.fileSystems = fileSystems
    self.options = options
    try Self.prepareFolder(options.recordFolder, fileSystems)
    let records = try Self.records(fileSystems, options)
    var places: [Place] = []
    var placeIndex: [Int?] = []
    for (system, record) in zip(fileSystems, records) {
      let mount = try MountedSystems.handle(of: system.device, preferring: system.mountPoint)
      guard let mount else {
        // Nothing is going to be frozen there.
        if !record.isStale { record.remove() }
        placeIndex.append(nil)
        continue
      }
      placeIndex.append(places.count)
      places.append(Place(fileSystem: system, mount: mount, record: record))
    }
    self.places = places
    self.placeIndex = placeIndex
    let configuration = GuardianConfiguration(
      places: places.map { .init(recordPath: $0.record.path, isStale: $0.record.isStale) },
      maxFreezeMilliseconds: options.maxFreezeMilliseconds, postThaw: postThaw)
    do throws(StrobeError) {
      let (process, socket, warnings) = try GuardianLaunch.start(
        options.guardianExecutable, configuration,
        mounts: places.map { $0.mount.descriptor.number },
        records: places.map { $0.record.file.number })
      link = GuardianLink(
        process, socket: socket, mounts: places.map(\.mount),
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

  /// The locks, taken in the order of the devices: two passes that want the same can't wait for each
  /// other.
  private static func records(
    _ fileSystems: [FileSystemOnDisk], _ options: FreezeOptions
  ) throws(StrobeError) -> [FreezeRecord] {
    let deadline = Clock.after(milliseconds: options.maxFreezeMilliseconds)
    let order = fileSystems.indices.sorted {
      let (left, right) = (fileSystems[$0].device, fileSystems[$1].device)
      return (left.major, left.minor) < (right.major, right.minor)
    }
    var records: [Int: FreezeRecord] = [:]
    do throws(StrobeError) {
      for index in order {
        records[index] = try FreezeRecord(
          of: fileSystems[index], in: options.recordFolder, until: deadline, stop: options.stop)
      }
    } catch {
      for record in records.values where !record.isStale { record.remove() }
      throw error
    }
    return fileSystems.indices.compactMap { records[$0] }
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
    for place in places {
      var last = Int64.max
      for _ in 0..<5 {
        let start = Clock.now()
        try systemCall("syncfs", place.fileSystem.mountPoint) {
          clinux_syncfs(place.mount.descriptor.number)
        }
        let time = Clock.now() - start
        if time < 20_000_000 || time >= last { break }
        last = time
      }
    }
  }

  /// Freezes all, innermost first, those of the same depth at once. The deadline counts from here.
  ///
  /// - Returns: what came of each file system, in the order of `fileSystems`.
  /// - Throws: when the guardian is lost or the deadline passes; everything is being thawed then.
  package func freeze() throws(StrobeError) -> [FreezeResult] {
    precondition(!hasBegun.exchange(true, ordering: .relaxed), "a session freezes once")
    for place in places { try place.record.arm(place.fileSystem.mountPoint) }
    link.state.update { $0.begin = Clock.now() }
    link.send(GuardianMessage(.begin))
    var outcomes = [FreezeOutcome](repeating: .vanished, count: fileSystems.count)
    for level in levels {
      // At once: most of a freeze is waiting for the kernel's own writes.
      for index in level { if let place = placeIndex[index] { try request(place) } }
      for index in level {
        if let place = placeIndex[index] { outcomes[index] = try outcome(of: place) }
      }
    }
    if isLost { throw lostError() }
    return fileSystems.indices.map { index in
      FreezeResult(
        fileSystem: fileSystems[index], outcome: outcomes[index],
        isLeftBehind: placeIndex[index].map { places[$0].record.isStale } ?? false)
    }
  }

  /// The file systems of one depth, innermost first: none of them lies on another of the same.
  private var levels: [[Int]] {
    var levels: [[Int]] = []
    for index in fileSystems.indices {
      if let last = levels.last?.last, fileSystems[last].depth == fileSystems[index].depth {
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

  private func outcome(of index: Int) throws(StrobeError) -> FreezeOutcome {
    let answer = link.state.wait { state in
      if let answer = state.answers[index] { return Optional(answer) }
      return state.hasDeadlineStruck || state.guardianDied ? .some((ECANCELED, 0)) : nil
    }
    guard let answer, answer.code != ECANCELED else { throw lostError() }
    switch answer.code {
    case 0: return .frozen(milliseconds: Double(answer.time) / 1e6)
    case EOPNOTSUPP, ENOTTY, ENOSYS: return .unsupported
    case EBUSY: return .alreadyFrozen
    default: return .failed(errno: answer.code)
    }
  }

  /// Whether the freeze surely doesn't hold any more: the deadline struck, or the guardian died. A cut
  /// that goes on is in vain.
  package var isLost: Bool { link.isLost.load(ordering: .relaxed) }

  /// For tests: the guardian's process.
  package var guardianProcess: Int32 { link.guardianProcess }
}
