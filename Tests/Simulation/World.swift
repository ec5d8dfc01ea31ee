import Engine
import Glibc
import Platform
import SimulationCalls
import TestSupport

/// What a seed came upon that must not be.
struct Finding: Error {
  let text: String
  init(_ text: String) { self.text = text }
}

/// One simulated world: machines with disks, a repository, and what the repository must hold.
///
/// Everything in it follows from the seed: the world's own choices, the engine's random numbers, the clock,
/// and at which call it is crashed, stopped or refused.
final class World {
  /// Where worlds are made; `scripts/test` removes what begins with `strobe-test-`.
  static let base = "/dev/shm/strobe-test-sim-"

  let seed: UInt64
  var random: SeededGenerator
  let folder: String
  var collections: [CollectionModel] = []
  var rot = Rot()
  var log: EventLog
  /// How many bytes, points and disks the world may have.
  let shape: Shape
  /// Nanoseconds since 1970.
  private(set) var clock: Int
  /// Whether head tables may be damaged.
  var haveTablesRotted = false
  /// Whether journals of interrupted passes may be damaged.
  var haveJournalsRotted = false
  /// Intercepted calls that a command of each kind made when nothing disturbed it.
  var usualCalls: [String: Int] = [:]
  private var restoreCount = 0

  struct Shape {
    let chunkSize: Int
    let keyframeLayerLimit: Int
    let segmentRollover: Int
    let pointLimit: Int
    let commandCount: Int
  }

  var repository: String { folder + "/repository" }

  init(seed: UInt64, small: Bool, echo: Bool) {
    self.seed = seed
    var random = SeededGenerator(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5151_51)
    shape = Shape(
      chunkSize: Bool.random(using: &random) ? 4096 : 16384,
      keyframeLayerLimit: Int.random(in: 2...8, using: &random),
      segmentRollover: Bool.random(using: &random)
        ? 1 << 30 : Int.random(in: 1...20, using: &random) * 16_384,
      pointLimit: [3, 6, 10, 15, 40].randomElement(using: &random)!,
      commandCount: Int.random(in: small ? 20...40 : 30...100, using: &random))
    folder = Self.folder(seed, process: simulation_process())
    clock =
      1_767_225_600_000_000_000 + Int.random(in: 0..<1_000_000_000, using: &random) * 1_000_000
    log = EventLog(folder: folder, echo: echo)
    self.random = random
    precondition(unsafe mkdir(folder, 0o700) == 0, "\(folder): \(errno)")
    precondition(unsafe mkdir(folder + "/disks", 0o700) == 0)
    Faults.begin(seed: seed, repository: repository, disks: folder + "/disks")
    Faults.setClock(clock)
    makeMachines(small: small)
  }

  deinit { removeTree(folder) }

  /// Of one length whatever the process, so that documents are as long in each run.
  static func folder(_ seed: UInt64, process: Int32) -> String {
    base + padded(Int(seed % 10_000_000_000), 10) + "-" + padded(Int(process), 8)
  }

  private func makeMachines(small: Bool) {
    for number in 1...Int.random(in: 1...3, using: &random) {
      let collection = CollectionModel("m\(number)", chunkSize: shape.chunkSize)
      for _ in 0..<Int.random(in: 1...3, using: &random) { addDisk(to: collection, small: small) }
      collections.append(collection)
    }
  }

  func addDisk(to collection: CollectionModel, small: Bool = false) {
    let limit = [200_000, 600_000, small ? 600_000 : SourceDisk.sizeLimit].randomElement(
      using: &random)!
    let size = Int.random(in: 1...(limit / 512), using: &random) * 512
    let name = collection.nextDiskName()
    let disk = SourceDisk(name, path: "\(folder)/disks/\(collection.name)-\(name)", size: size)
    collection.disks.append(disk)
    if Bool.random(using: &random) {
      disk.write(random.bytes(disk.content.count / 2), at: 0)
    }
  }

  /// Opens the repository as every command of the program does.
  func engine() throws(StrobeError) -> SnapshotEngine { try SnapshotEngine(repository: repository) }

  /// Moves the clock, within the years that the format can write.
  func moveClock(by nanoseconds: Int) {
    let year = 31_557_600_000_000_000
    clock = min(max(clock + nanoseconds, 20 * year), 200 * year)
    Faults.setClock(clock)
  }

  /// A name for a file that nothing has yet.
  func newTarget() -> String {
    restoreCount += 1
    return "\(folder)/restored-\(restoreCount)"
  }

  func options(for collection: CollectionModel) -> SnapshotOptions {
    var options = SnapshotOptions()
    options.disks = collection.disks.map { .init(name: $0.name, path: $0.path) }
    options.chunkSize = shape.chunkSize
    options.keyframeLayerLimit = shape.keyframeLayerLimit
    options.segmentRollover = shape.segmentRollover
    options.workerCount = 1
    options.freezing = .none
    options.tracking = .none
    return options
  }

  func require(_ condition: Bool, _ text: @autoclosure () -> String) throws(Finding) {
    guard condition else { throw Finding(text()) }
  }
}

extension World {
  /// A point that the model has, most often one of the newest.
  func anyPoint() -> (collection: CollectionModel, point: PointModel)? {
    let some = collections.filter { !$0.points.isEmpty }
    guard let collection = some.randomElement(using: &random) else { return nil }
    let recent = collection.points.suffix(Bool.random(using: &random) ? 3 : 1000)
    return (collection, recent.randomElement(using: &random)!)
  }

  var pointCount: Int { collections.reduce(0) { $0 + $1.points.count } }

  /// The collections that the repository has.
  var known: [CollectionModel] { collections.filter(isThere) }
}

func padded(_ number: Int, _ width: Int) -> String {
  let digits = String(number)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
