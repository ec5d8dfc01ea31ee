import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository

/// A collection prepared for one snapshot: its record, its newest point held against deletion, and its
/// disks opened.
final class CollectionSession {
  private let repository: Repository
  private let record: CollectionRecord
  private let mustWriteRecord: Bool
  private let parent: RestorePoint?
  private let parentLock: (any StoreLock)?
  private let sequence: Int
  private let disks: [CollectionRecord.Disk]
  private let plans: [DiskPlan]
  private let options: SnapshotOptions
  private let guest: GuestSelection.Found
  private(set) var warnings: [String]

  /// More points than anybody deletes between two that stay.
  private static let sequenceLeap = 1 << 20

  /// The collection's writer lock must be held.
  init(
    _ repository: Repository, _ name: String, _ options: SnapshotOptions, stop: CancellationFlag
  ) throws(StrobeError) {
    var warnings: [String] = []
    let index = try PointIndex.load(repository, name)
    for error in index.unreadable { warnings.append("\(error.message); it is passed over") }
    let (parent, lock) = try Self.holdNewest(repository, name, index, &warnings)
    let (known, isRecovered) = try Self.record(repository, name, parent: parent, &warnings)
    let chunkSize = try Self.chunkSize(repository, known, options)
    let memory = GuestSelection.memory(known?.guest, options)
    let guest = try GuestSelection.find(
      remembered: known?.disks ?? [], memory, options, collection: name, stop: stop)
    let (disks, sources) = try Self.disks(of: known, guest, options, name)
    if case .atRest(let guest) = guest { warnings += guest.warnings }
    let record =
      known
      ?? CollectionRecord(
        name: name, chunkSize: chunkSize, fingerprint: repository.defaultFingerprint, disks: disks)
    self.repository = repository
    self.record = record.remembering(disks, memory.isEmpty ? nil : memory)
    self.guest = guest
    self.disks = disks
    self.parent = parent
    self.options = options
    self.warnings = warnings
    parentLock = lock
    mustWriteRecord = known != self.record || isRecovered
    // A point that can't be read has its place in the order, too. Nobody can tell which, for points after
    // it may have been deleted: a leap passes it for sure.
    // One for each of them: the newest may itself have leapt over another.
    let leap = index.unreadable.count * Self.sequenceLeap
    sequence = (index.points.last?.sequence ?? 0) + 1 + leap
    var plans: [DiskPlan] = []
    for (disk, source) in zip(disks, sources) {
      let plan = try DiskPlan.make(
        repository, record, name: disk.name, source: source, parent: parent, options)
      if plan.isSurprise, let reason = plan.newChainReason {
        self.warnings.append("disk \(disk.name) is stored whole: \(reason)")
      }
      plans.append(plan)
    }
    self.plans = plans
  }

  private static func disks(
    of known: CollectionRecord?, _ guest: GuestSelection.Found, _ options: SnapshotOptions,
    _ name: String
  ) throws(StrobeError) -> ([CollectionRecord.Disk], [DiskSource]) {
    switch guest {
    case .running(let guest): return (guest.records, try guest.sources())
    case .atRest(let guest): return (guest.records, try guest.sources())
    case .thisHosts: break
    }
    let disks = try DiskSelection.select(
      remembered: known?.disks ?? [], options, collection: name)
    let remembered = known?.disks.map(\.name) ?? []
    return (disks, try DiskSelection.open(disks, isRemembered: remembered.contains))
  }

  /// The newest point that can be read, held against deletion.
  private static func holdNewest(
    _ repository: Repository, _ name: String, _ index: PointIndex, _ warnings: inout [String]
  ) throws(StrobeError) -> (RestorePoint?, (any StoreLock)?) {
    for summary in index.points.reversed() {
      do throws(StrobeError) {
        let (point, lock) = try repository.hold(name, summary.id)
        return (point, lock)
      } catch {
        // Deleted meanwhile, or damaged since it was indexed: the one before will do.
        if error.isUnreadable {
          warnings.append("\(error.message); it is passed over")
          continue
        }
        guard error.reason == .notFound || error.reason == .busy else { throw error }
      }
    }
    return (nil, nil)
  }

  private static func record(
    _ repository: Repository, _ name: String, parent: RestorePoint?, _ warnings: inout [String]
  ) throws(StrobeError) -> (CollectionRecord?, isRecovered: Bool) {
    do throws(StrobeError) {
      return (try CollectionRecord.read(repository.store, name), false)
    } catch {
      if error.reason == .notFound && parent == nil { return (nil, false) }
      guard error.isUnreadable || error.reason == .notFound, let parent else { throw error }
      warnings.append("\(error.message); it was made again from point \(parent.id)")
      return (CollectionRecord(recoveredFrom: parent), true)
    }
  }

  private static func chunkSize(
    _ repository: Repository, _ known: CollectionRecord?, _ options: SnapshotOptions
  ) throws(StrobeError) -> Int {
    if let asked = options.chunkSize {
      guard ChunkGeometry.isValid(chunkSize: asked) else {
        throw Repository.invalidChunkSize(asked)
      }
      if let known, known.chunkSize != asked {
        throw StrobeError(
          .usage,
          "collection \(known.name) has chunks of \(known.chunkSize) bytes, which can't be changed",
          advice: "leave --chunk-size out, or start another collection")
      }
      return asked
    }
    return known?.chunkSize ?? repository.configuration.defaultChunkSize
  }

  func run(
    progress: Progress, stop: CancellationFlag
  ) throws(StrobeError) -> SnapshotOutcome {
    // Before the pass: a point must never be there without its collection's record. A new one is
    // harmless when the pass fails.
    if mustWriteRecord { try record.write(repository.store) }
    let context = PassContext(
      repository: repository, collection: record, plans: plans, parent: parent,
      sequence: sequence, options: options, owner: guest)
    return try SnapshotPass(context, progress: progress, stop: stop).run()
  }

  func release() { parentLock?.release() }
}
