package import ChangeDetection
package import Platform

/// What a restore point was when it was taken: what was achieved, never what was asked for.
public enum Consistency: String, Codable, Sendable, CaseIterable {
  /// The applications said that their data was at rest.
  case applicationConsistent = "ApplicationConsistent"
  /// The file systems were frozen until the cut was complete.
  case fileSystemConsistent = "FileSystemConsistent"
  /// One instant of every disk, as after a power cut.
  case crashConsistent = "CrashConsistent"
  /// The disks may have been written to while they were read.
  case inconsistent = "Inconsistent"

  /// The cases stand in the order of what they promise, most first.
  public func isWeaker(than other: Consistency) -> Bool {
    Self.allCases.firstIndex(of: self)! > Self.allCases.firstIndex(of: other)!
  }
}

/// How changed chunks were found.
public enum ChangeSource: String, Codable, Sendable {
  /// The whole disk was read.
  case scan
  /// A tracker named the candidates.
  case tracked
  /// QEMU's dirty bitmap named them.
  case qemuBitmap = "qemu-bitmap"
}

/// How a disk was brought to one instant.
public enum CutKind: String, Codable, Sendable {
  /// A copy that shares the image file's blocks was made, and read afterwards.
  case clone
  /// Copied while in use; what was written meanwhile was read at the cut.
  case preCopy
  /// Read whole while everything was frozen.
  case underFreeze
  /// Read whole; nothing was held still for it.
  case live
  /// The guest's hypervisor kept what the guest wrote afterwards apart.
  case hypervisor
}

/// One disk of a restore point, as its document holds it.
public struct DiskRestorePoint: Codable, Sendable, Equatable {
  public let name: String
  /// The device or file that was read, as the user named it.
  public let source: String
  /// What tells this disk from another that takes its name.
  public let identity: String
  /// Bytes.
  public let size: Int
  /// Bytes.
  public let logicalSectorSize: Int
  public let changeSource: ChangeSource
  /// Why the whole disk was read although a tracker might have spared it, or nil.
  public let scanReason: String?
  /// How the disk was brought to one instant; nil in points of versions that brought none there.
  public let cut: CutKind?
  /// Why this point starts a new chain, or nil when it continues its parent's.
  public let newChainReason: String?
  /// Chunks that differ from the parent, cleared ones included.
  public let changedChunks: Int
  /// Chunks that became zeros.
  public let clearedChunks: Int
  /// Bytes of content in changed chunks that aren't zeros.
  public let changedBytes: Int
  /// Bytes added to the segments.
  public let storedBytes: Int
  /// Bytes read from the source.
  public let readBytes: Int
  /// The identities of the layers, oldest first: 32 hexadecimal digits each.
  public internal(set) var layers: [String]

  package init(
    name: String, source: String, identity: String, size: Int, logicalSectorSize: Int,
    changeSource: ChangeSource, scanReason: String? = nil, cut: CutKind? = nil,
    newChainReason: String?, changedChunks: Int, clearedChunks: Int, changedBytes: Int,
    storedBytes: Int, readBytes: Int, layers: [String]
  ) {
    self.name = name
    self.source = source
    self.identity = identity
    self.size = size
    self.logicalSectorSize = logicalSectorSize
    self.changeSource = changeSource
    self.scanReason = scanReason
    self.cut = cut
    self.newChainReason = newChainReason
    self.changedChunks = changedChunks
    self.clearedChunks = clearedChunks
    self.changedBytes = changedBytes
    self.storedBytes = storedBytes
    self.readBytes = readBytes
    self.layers = layers
  }
}

/// A restore point's document: the commit record. With its layers and their segments it is all that a
/// restore needs.
public struct RestorePoint: Codable, Sendable, Equatable {
  let format: Int
  /// 24 hexadecimal digits.
  public let id: String
  public let collection: String
  package let collectionID: String
  /// Counts the points of a collection, from 1; orders them whatever the clock did.
  public let sequence: Int
  /// The point that the changes are counted against, or nil for the first.
  public let parent: String?
  /// When the pass began: with a freeze, the instant that the point shows.
  public let created: Timestamp
  public let finished: Timestamp
  public let consistency: Consistency
  /// Why it is no better than that.
  public let consistencyReasons: [String]
  /// From the first freeze to the last thaw, or nil when nothing was frozen.
  public let freezeWindowMilliseconds: Double?
  /// The file systems that were frozen, in the order in which they were; nil when there were none.
  public let frozen: [FrozenFileSystem]?
  /// The hooks that ran, and what they said; nil when there were none.
  public let hooks: [HookRecord]?
  /// The guest whose disks these are, when they were read through its hypervisor.
  public let machine: MachineRecord?
  /// Bytes.
  public let chunkSize: Int
  /// A ``FingerprintKind``; nil: `xxh3-128`.
  public let fingerprint: String?
  /// What keys the fingerprints, 384 hexadecimal digits: here so that a point needs no other document.
  package let fingerprintSecret: String
  public internal(set) var disks: [DiskRestorePoint]
  /// The program that wrote it.
  public let writer: String

  package init(
    id: String, collection: CollectionRecord, sequence: Int, parent: String?, created: Timestamp,
    finished: Timestamp, consistency: Consistency, consistencyReasons: [String],
    freezeWindowMilliseconds: Double?, frozen: [FrozenFileSystem]? = nil,
    hooks: [HookRecord]? = nil, machine: MachineRecord? = nil, disks: [DiskRestorePoint],
    writer: String
  ) {
    format = max(collection.format, machine == nil ? Document.format : MachineRecord.format)
    self.id = id
    self.collection = collection.name
    collectionID = collection.id
    self.sequence = sequence
    self.parent = parent
    self.created = created
    self.finished = finished
    self.consistency = consistency
    self.consistencyReasons = consistencyReasons
    self.freezeWindowMilliseconds = freezeWindowMilliseconds
    self.frozen = frozen
    self.hooks = hooks
    self.machine = machine
    chunkSize = collection.chunkSize
    fingerprint =
      collection.fingerprint == FingerprintKind.xxh3.rawValue ? nil : collection.fingerprint
    fingerprintSecret = collection.fingerprintSecret
    self.disks = disks
    self.writer = writer
  }

  package static func objectName(_ collection: String, _ id: String) -> String {
    "collections/\(collection)/\(id).json"
  }

  package var secret: FingerprintSecret? {
    FingerprintSecret(hexadecimal: fingerprintSecret, kind: fingerprint, format: format)
  }

  /// Reads the document of a point and checks that it is the one that was asked for.
  package static func read(
    _ store: any ObjectStore, _ collection: String, _ id: String
  ) throws(StrobeError) -> RestorePoint {
    let name = objectName(collection, id)
    let bytes = try store.get(name, limit: Document.sizeLimit)
    let point = try Document.decode(RestorePoint.self, bytes, name: name)
    guard point.id == id, point.collection == collection, point.secret != nil,
      ChunkGeometry.isValid(chunkSize: point.chunkSize), point.sequence >= 1,
      point.sequence < largestNumber, !point.disks.isEmpty, point.disks.allSatisfy(\.makesSense),
      Names.areFiles(point.disks.map(\.name)), point.sumsFit, point.timesFit
    else {
      throw .damaged(name, expected: "restore point \(id) of \(collection)", found: "other fields")
    }
    return point
  }

  /// No number of a document is as large.
  fileprivate static let largestNumber = Int.max >> 8

  /// Whether `milliseconds` is a time that can be shown: no number of a document is larger.
  static func isTime(_ milliseconds: Double) -> Bool { 0..<Double(largestNumber) ~= milliseconds }

  private var timesFit: Bool {
    let times =
      (freezeWindowMilliseconds.map { [$0] } ?? []) + (frozen ?? []).map(\.freezeMilliseconds)
      + (hooks ?? []).map(\.milliseconds)
    return times.allSatisfy(Self.isTime)
      && (hooks ?? []).allSatisfy { 0..<Self.largestNumber ~= $0.attempts }
  }

  /// Whether the sums over all disks that a list shows fit 64 bits.
  private var sumsFit: Bool {
    [\DiskRestorePoint.size, \.changedBytes, \.storedBytes].allSatisfy { field in
      disks.reduce(Optional(0)) { sum, disk in
        guard let (sum, isTooLarge) = sum?.addingReportingOverflow(disk[keyPath: field]) else {
          return nil
        }
        return isTooLarge ? nil : sum
      } != nil
    }
  }
}

extension DiskRestorePoint {
  fileprivate var makesSense: Bool {
    let numbers = [
      size, logicalSectorSize, changedChunks, clearedChunks, changedBytes, storedBytes, readBytes,
    ]
    return numbers.allSatisfy { 0..<RestorePoint.largestNumber ~= $0 } && size % 512 == 0
      && !layers.isEmpty && layers.allSatisfy { ObjectID($0) != nil }
  }

  package var layerIDs: [ObjectID] { layers.compactMap { ObjectID($0) } }
}
