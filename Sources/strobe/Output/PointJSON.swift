import Engine
import SnapshotRepository

/// A restore point as `--json` shows it; keys don't change.
struct PointJSON: Encodable {
  struct Disk: Encodable {
    let name: String
    let source: String
    let identity: String
    let size: Int
    let logicalSectorSize: Int
    let changeSource: String
    let scanReason: String?
    let cut: String?
    let newChainReason: String?
    let changedChunks: Int
    let clearedChunks: Int
    let changedBytes: Int
    let storedBytes: Int
    let readBytes: Int
    let layers: [Layer]
  }

  struct Layer: Encodable {
    let id: String
    let isKeyframe: Bool?
    let changedChunks: Int?
    let storedChunks: Int?
    let size: Int?
  }

  let collection: String
  let id: String
  let sequence: Int
  let parent: String?
  let created: String
  let finished: String
  let consistency: String
  let consistencyReasons: [String]
  let freezeWindowMilliseconds: Double?
  let frozen: [FrozenFileSystem]?
  let hooks: [HookRecord]?
  let machine: MachineRecord?
  let chunkSize: Int
  /// Only where it isn't `xxh3-128`.
  let fingerprint: String?
  let writer: String
  let disks: [Disk]
  let seconds: Double?
  let adoptedBytes: Int?
  let warnings: [String]?
  let healedChunks: Int?
  /// Nil where nothing was asked of it: a point that was just taken isn't protected.
  let protected: Bool?
  let protection: Protection?

  struct Protection: Encodable {
    let since: String?
    let note: String?
  }

  init(
    _ point: RestorePoint, seconds: Double? = nil, adoptedBytes: Int? = nil,
    warnings: [String]? = nil, healedChunks: Int? = nil, described: PointDescription? = nil
  ) {
    collection = point.collection
    id = point.id
    sequence = point.sequence
    parent = point.parent
    created = point.created.description
    finished = point.finished.description
    consistency = point.consistency.rawValue
    consistencyReasons = point.consistencyReasons
    freezeWindowMilliseconds = point.freezeWindowMilliseconds
    frozen = point.frozen
    hooks = point.hooks
    machine = point.machine
    chunkSize = point.chunkSize
    fingerprint = point.fingerprint
    writer = point.writer
    self.seconds = seconds
    self.adoptedBytes = adoptedBytes
    self.warnings = warnings
    self.healedChunks = healedChunks
    protected = described.map { $0.protection != nil }
    protection = described?.protection.map {
      Protection(since: $0.since?.description, note: $0.note)
    }
    disks = point.disks.enumerated().map { index, disk in
      let described = described?.disks[index].layers.map {
        Layer(
          id: $0.id, isKeyframe: $0.isKeyframe, changedChunks: $0.changedChunks,
          storedChunks: $0.storedChunks, size: $0.size)
      }
      return Disk(
        name: disk.name, source: disk.source, identity: disk.identity, size: disk.size,
        logicalSectorSize: disk.logicalSectorSize, changeSource: disk.changeSource.rawValue,
        scanReason: disk.scanReason, cut: disk.cut?.rawValue,
        newChainReason: disk.newChainReason, changedChunks: disk.changedChunks,
        clearedChunks: disk.clearedChunks, changedBytes: disk.changedBytes,
        storedBytes: disk.storedBytes, readBytes: disk.readBytes,
        layers: described
          ?? disk.layers.map {
            Layer(id: $0, isKeyframe: nil, changedChunks: nil, storedChunks: nil, size: nil)
          })
    }
  }
}
