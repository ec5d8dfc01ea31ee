import Engine
import FaultLayer
import Glibc
import Platform
import SnapshotRepository
import TestSupport

/// When something is there.
struct Lifetime {
  /// Steps of the record: not there before the first of them is taken, surely there after the last; nil: before the record.
  var appears: Range<Int>?
  /// The same for its removal; nil: never.
  var vanishes: Range<Int>?

  enum Presence: Int {
    case must, may, mustNot
  }

  /// What a crash after so many steps leaves of it.
  func presence(after steps: Int) -> Presence {
    if let appears, steps <= appears.lowerBound { return .mustNot }
    if let vanishes, steps >= vanishes.upperBound { return .mustNot }
    if let vanishes, steps > vanishes.lowerBound { return .may }
    if let appears, steps < appears.upperBound { return .may }
    return .must
  }
}

/// A restore point that was taken, and what it has to restore to.
final class KnownPoint {
  /// That it must not be deleted.
  struct Protection {
    var life = Lifetime()
    /// What was noted, the newest last.
    var notes: [String]
    /// The step of the record from which on the newest is the only one.
    var isNotedFrom = 0
  }

  let id: String
  let disks: [String: [UInt8]]
  var life = Lifetime()
  var protection: Protection?

  init(id: String, disks: [String: [UInt8]]) {
    self.id = id
    self.disks = disks
  }
}

/// What is played with one repository: a history, then the operation that is recorded. Everything follows from the seed.
final class Play {
  static let collection = "m"
  /// 2026-11-21T08:00:00Z in nanoseconds.
  private static let start: Int64 = 1_795_248_000_000_000_000

  let folder: String
  let repository: String
  var random: SeededGenerator
  var disks: [TestDisk] = []
  var options = SnapshotOptions()
  private(set) var points: [KnownPoint] = []
  /// From which step of the record on the repository has to be there.
  private(set) var isThereFrom = 0
  /// A copy of the repository as it was before it was damaged.
  var copy: String?
  /// Stored chunks that were damaged before the record, by ``recordKey(_:_:)``: the step of the record from which on
  /// they can be read again.
  var damage: [String: Int] = [:]
  /// Of the last snapshot.
  private(set) var report: SnapshotReport?
  private(set) var isRecording = false
  private var before = DiskImage()

  init(_ folder: String, seed: UInt64, diskCount: Int = 2) throws {
    self.folder = folder
    repository = folder + "/repository"
    random = SeededGenerator(seed: seed)
    faultlayer_seed_random(mixed(seed, 1))
    faultlayer_hold_clock(Self.start, 1_000_000)
    faultlayer_set_process(4242)
    for index in 0..<diskCount { try addDisk("disk\(index)") }
    options.freezing = .none
    options.tracking = .none
    options.workerCount = 1
    options.keyframeLayerLimit = Int.random(in: 2...6, using: &random)
    options.segmentRollover = Int.random(in: 1...12, using: &random) * 16_384
  }

  func addDisk(_ name: String) throws {
    let size = Int.random(in: 16...40, using: &random) * TestDisk.chunkSize
    disks.append(try TestDisk(name, folder + "/" + name, size: size, &random))
    options.disks = disks.map { .init(name: $0.name, path: $0.path) }
  }

  // ---------------------------------------------------------------- what can happen

  var steps: Int { Int(faultlayer_op_count()) }

  /// The steps since then, for a ``Lifetime``.
  func span(from first: Int) -> Range<Int> { isRecording ? first..<steps : 0..<0 }

  /// The points that are there, oldest first.
  var present: [KnownPoint] { points.filter { $0.life.vanishes == nil } }

  func engine() throws -> SnapshotEngine { try SnapshotEngine(repository: repository) }

  func create() throws {
    _ = try SnapshotEngine.create(at: repository, chunkSize: TestDisk.chunkSize)
    if isRecording { isThereFrom = steps }
  }

  func repair() throws {
    _ = try SnapshotEngine.create(at: repository, chunkSize: TestDisk.chunkSize, repairing: true)
    if isRecording { isThereFrom = steps }
  }

  func changeDisks() throws { for disk in disks { try disk.change(&random) } }

  @discardableResult
  func snapshot(change: Bool = true) throws -> KnownPoint {
    if change { try changeDisks() }
    let first = steps
    let report = try engine().snapshot(Self.collection, options)
    self.report = report
    let contents = Dictionary(uniqueKeysWithValues: disks.map { ($0.name, $0.content) })
    let point = KnownPoint(id: report.point.id, disks: contents)
    if isRecording { point.life.appears = first..<steps }
    points.append(point)
    return point
  }

  /// A snapshot that runs out of space.
  func failingSnapshot() throws {
    try changeDisks()
    unsafe faultlayer_set_space(repository, Int64.random(in: 500...30_000, using: &random))
    defer { faultlayer_clear_faults() }
    do {
      try snapshot(change: false)
    } catch let error as StrobeError {
      guard error.errno == ENOSPC else { throw error }
    }
  }

  /// Carries out something whose process is killed on the way: from some effect on, nothing of it reaches the file
  /// system, and what it had not made durable stays pending.
  func killed(_ body: () throws -> Void) throws {
    let first = steps
    let path = unsafe strdup(repository)
    defer { unsafe free(path) }
    var fault = unsafe faultlayer_fault()
    unsafe fault.calls = UInt32(FAULTLAYER_EFFECTS)
    unsafe fault.prefix = UnsafePointer(path)
    unsafe fault.first = UInt64(Int.random(in: 1...50, using: &random))
    unsafe fault.error = EIO
    unsafe faultlayer_add_fault(&fault)
    do {
      try body()
    } catch is StrobeError {}
    faultlayer_clear_faults()
    // It may have come as far as its commit, which may not be durable.
    let contents = Dictionary(uniqueKeysWithValues: disks.map { ($0.name, $0.content) })
    for id in try engine().list(Self.collection)[0].points.map(\.id)
    where !points.contains(where: { $0.id == id }) {
      let point = KnownPoint(id: id, disks: contents)
      point.life.appears = first..<Int.max
      points.append(point)
    }
  }

  func delete(_ victims: [KnownPoint]) throws {
    let first = steps
    try engine().delete(try victims.map { try PointReference("\(Self.collection)@\($0.id)") })
    for point in victims { point.life.vanishes = span(from: first) }
  }

  func list() throws { _ = try engine().list() }

  func deleteSome(_ count: Int) throws {
    try delete(Array(present.shuffled(using: &random).prefix(count)))
  }

  /// - Parameters:
  ///   - rewriting: parts of segments are freed by writing the rest again.
  ///   - dropping: what interrupted snapshots left goes, too.
  @discardableResult
  func collect(
    rewriting: Bool = false, dropping: Bool = false
  ) throws -> GarbageCollection.Outcome {
    try Self.collect(repository, rewriting: rewriting, dropping: dropping)
  }

  @discardableResult
  static func collect(
    _ repository: String, rewriting: Bool, dropping: Bool
  ) throws -> GarbageCollection.Outcome {
    var options = GarbageCollection.Options()
    options.mayPunch = !rewriting
    options.maxUnused = 0
    options.dropsUnfinished = dropping
    return try GarbageCollection.run(
      try Repository.open(at: repository), options, stop: CancellationFlag())
  }

  // ---------------------------------------------------------------- the record

  /// Records what `body` does to the repository.
  func record(_ body: () throws -> Void) throws {
    points = present
    for point in points { point.life.appears = nil }
    if try FileFacts(path: repository) == nil {
      try systemCall("mkdir", repository) { unsafe mkdir(repository, 0o700) }
    }
    before = try DiskImage(reading: repository)
    isThereFrom = 0
    unsafe faultlayer_record(repository)
    isRecording = true
    defer {
      faultlayer_stop_recording()
      isRecording = false
    }
    try body()
  }

  /// What was recorded, from the state before it.
  func recorded() throws -> (model: FileSystemModel, steps: [Step]) {
    (FileSystemModel(before), try Step.recorded())
  }

  /// Loses power somewhere in what was recorded; what is found then is the history of what follows.
  func crash() throws {
    var (model, steps) = try recorded()
    let count = Int.random(in: 0...steps.count, using: &random)
    for step in steps[..<count] { try model.apply(step) }
    let state = model.state(Int.random(in: 0..<12, using: &random), &random)
    try WorkTree(repository).become(state)
    let found = try engine().list(Self.collection)[0].points.map(\.id)
    points = points.filter { found.contains($0.id) }
    for point in points { point.life.vanishes = nil }
  }
}

extension KnownPoint {
  /// Tells apart what it must be after so many steps.
  func expectation(after steps: Int) -> UInt64 {
    mixed(
      UInt64(life.presence(after: steps).rawValue),
      UInt64(protection?.life.presence(after: steps).rawValue ?? 3),
      (protection?.isNotedFrom ?? 0) <= steps ? 1 : 0)
  }
}
