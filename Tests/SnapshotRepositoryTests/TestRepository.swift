import ChangeDetection
import ChunkCodec
import Glibc
import Platform
import SnapshotRepository
import TestSupport

/// A repository of a test, in memory where the machine allows it.
final class TestRepository: Sendable {
  let folder: TemporaryDirectory
  let repository: Repository

  init() throws {
    folder = TemporaryDirectory(in: unsafe access("/dev/shm", W_OK) == 0 ? "/dev/shm" : nil)
    repository = try Repository.create(
      at: folder.file("repository"), defaultChunkSize: ModelDisk.chunkSize)
  }

  var store: any ObjectStore { repository.store }
  var path: String { folder.file("repository") }

  /// The path of an object.
  func path(_ name: String) -> String { path + "/" + name }

  /// All objects below layers and segments.
  func objects() throws -> Set<String> {
    var found: Set<String> = []
    for room in ["layers", "segments"] {
      for inner in try store.names(in: room) {
        for name in try store.names(in: "\(room)/\(inner)") {
          found.insert("\(room)/\(inner)/\(name)")
        }
      }
    }
    return found
  }
}

extension GarbageCollection.Options {
  static var dryRun: Self {
    var options = Self()
    options.isDryRun = true
    return options
  }
}

/// Adds restore points to a collection as an engine would, chunk by chunk.
struct TestCollection {
  let repository: Repository
  let record: CollectionRecord
  private(set) var points: [RestorePoint] = []

  init(_ repository: Repository, _ record: CollectionRecord) throws {
    self.repository = repository
    self.record = record
    try record.write(repository.store)
  }

  init(_ repository: Repository, _ name: String = "web") throws {
    try self.init(
      repository, CollectionRecord(name: name, chunkSize: ModelDisk.chunkSize, disks: []))
  }

  /// Commits a point of `disks`.
  ///
  /// - Parameters:
  ///   - keyframe: whether the parent's chains are replaced by keyframes first.
  ///   - older: build on the point before the newest, as when that one could not be read.
  @discardableResult
  mutating func add(
    _ disks: [(name: String, disk: ModelDisk)], pass: PassID = PassID(), keyframe: Bool = false,
    older: Bool = false, created: Timestamp = .now
  ) throws -> RestorePoint {
    let writer = try repository.lockWriter(of: record.name, note: "a test")
    defer { writer.release() }
    let registration = try PassRegistration.begin(repository.store, pass, note: "a test")
    defer { registration.release() }
    // As it is now: gc may have merged its layers.
    let parent = points.dropLast(older ? 1 : 0).last.map { point in
      (try? RestorePoint.read(repository.store, record.name, point.id)) ?? point
    }
    let segments = SegmentWriter(repository.store, pass)
    var records: [DiskRestorePoint] = []
    for (index, (name, disk)) in disks.enumerated() {
      let old = parent?.disks.first { $0.name == name }
      let layers = DiskLayers(repository: repository, pass: pass, index: index)
      records.append(
        try layers.write(name, disk, after: old, keyframe: keyframe, segments, record.secret!))
    }
    try segments.finish()
    let point = RestorePoint(
      id: pass.description, collection: record, sequence: points.count + 1, parent: parent?.id,
      created: created, finished: created, consistency: .crashConsistent, consistencyReasons: [],
      freezeWindowMilliseconds: nil, disks: records, writer: "a test")
    try repository.commit(point, registration: registration)
    points.append(point)
    return point
  }

  /// Deletes a point and forgets it.
  mutating func delete(_ index: Int) throws {
    try repository.delete(record.name, points[index].id)
    points.remove(at: index)
  }
}

/// Writes the layers of one disk of a point.
private struct DiskLayers {
  let repository: Repository
  let pass: PassID
  let index: Int

  func write(
    _ name: String, _ disk: ModelDisk, after old: DiskRestorePoint?, keyframe: Bool,
    _ segments: SegmentWriter, _ secret: FingerprintSecret
  ) throws -> DiskRestorePoint {
    let geometry = disk.geometry
    let parent = try old.map { try Chain.open($0, repository.store) }
    var layers = old?.layerIDs ?? []
    if keyframe, let parent {
      layers = [pass.object(UInt32(2 * index + 1))]
      try Keyframe.write(repository.store, layers[0], of: parent)
    }
    layers.append(pass.object(UInt32(2 * index)))
    let writer = try LayerWriter(
      repository.store,
      LayerHeader(id: layers[layers.count - 1], isKeyframe: false, geometry: geometry))
    let before = segments.storedBytes
    for group in 0..<geometry.groupCount {
      let map = GroupMap()
      try fill(map, group, disk, parent, segments, secret)
      try writer.append(group: group, map)
    }
    try writer.finish(segments: segments.ids)
    return DiskRestorePoint(
      name: name, source: "/dev/test", identity: "test", size: disk.size, logicalSectorSize: 512,
      changeSource: .scan, newChainReason: old == nil ? "first" : nil,
      changedChunks: writer.changedCount, clearedChunks: writer.changedCount - writer.storedCount,
      changedBytes: writer.storedCount * geometry.chunkSize,
      storedBytes: segments.storedBytes - before,
      readBytes: disk.size, layers: layers.map(\.description))
  }

  private func fill(
    _ map: GroupMap, _ group: Int, _ disk: ModelDisk, _ parent: Chain?, _ segments: SegmentWriter,
    _ secret: FingerprintSecret
  ) throws {
    let known = try parent.flatMap {
      group < $0.geometry.groupCount ? try $0.resolved(group: group) : nil
    }
    for position in disk.geometry.positions(ofGroup: group) {
      let place = position % ChunkGeometry.chunksPerGroup
      let old = known?.fingerprint(place) ?? .zero
      guard let content = disk.content(of: position) else {
        if !old.isZero { map.clear(word: place >> 6, bits: 1 << UInt64(place & 63)) }
        continue
      }
      let (record, fingerprint) = encodeRecord(content, secret)
      if fingerprint == old { continue }
      let (segment, offset) = try unsafe record.withBytes { (bytes) throws(StrobeError) in
        try unsafe segments.append(bytes)
      }
      map.set(
        place, fingerprint,
        ChunkLocation(segment: segment, length: UInt32(record.count), offset: UInt64(offset)))
    }
  }
}

/// A record as a segment holds it.
func encodeRecord(
  _ content: [UInt8], _ secret: FingerprintSecret
) -> (record: [UInt8], fingerprint: Fingerprint) {
  let fingerprint = unsafe content.withUnsafeBytes { unsafe secret.fingerprint(of: $0) }
  let encoder = ChunkEncoder()
  var bytes = [UInt8](repeating: 0, count: SegmentFormat.recordHeaderSize + content.count)
  let count = unsafe bytes.withUnsafeMutableBytes { bytes in
    let start = bytes.baseAddress!
    let (encoding, count) = unsafe content.withUnsafeBytes {
      unsafe encoder.encode($0, to: start + SegmentFormat.recordHeaderSize)
    }
    unsafe ChunkRecord(
      encoding: encoding, storedLength: count, contentLength: content.count,
      fingerprint: fingerprint
    ).store(at: start)
    return count
  }
  return (Array(bytes[..<(SegmentFormat.recordHeaderSize + count)]), fingerprint)
}

extension Chain {
  /// The chain of one disk of a point.
  static func open(_ disk: DiskRestorePoint, _ store: any ObjectStore) throws(StrobeError) -> Chain
  {
    try Chain(
      store, layers: disk.layerIDs,
      geometry: ChunkGeometry(diskSize: disk.size, chunkSize: ModelDisk.chunkSize))
  }
}

/// All bytes of one disk of a point, each chunk checked.
func restore(
  _ repository: Repository, _ point: RestorePoint, _ name: String
) throws -> [UInt8] {
  let disk = point.disks.first { $0.name == name }!
  let chain = try Chain.open(disk, repository.store)
  let reader = ChunkReader(repository.store, point.secret!, segments: chain.segments)
  var bytes = [UInt8](repeating: 0, count: disk.size)
  for group in 0..<chain.geometry.groupCount {
    let map = try chain.resolved(group: group)
    for position in chain.geometry.positions(ofGroup: group)
    where map.isStored(position % ChunkGeometry.chunksPerGroup) {
      let place = position % ChunkGeometry.chunksPerGroup
      let content = try chunk(
        reader, map.location(place), map.fingerprint(place),
        length: chain.geometry.length(of: position))
      bytes.replaceSubrange(
        chain.geometry.offset(of: position)..<(chain.geometry.offset(of: position) + content.count),
        with: content)
    }
  }
  return bytes
}

/// One chunk, read and checked.
func chunk(
  _ reader: ChunkReader, _ location: ChunkLocation, _ fingerprint: Fingerprint, length: Int
) throws -> [UInt8] {
  var record = [UInt8](repeating: 0, count: Int(location.length))
  let segment = try reader.segment(location.segment)
  try unsafe record.withMutableBytes { (bytes) throws(StrobeError) in
    try unsafe segment.read(at: Int(location.offset), into: bytes)
  }
  var content = [UInt8](repeating: 0, count: length)
  try unsafe content.withMutableBytes { (into) throws(StrobeError) in
    try unsafe record.withBytes { (bytes) throws(StrobeError) in
      try unsafe reader.decode(bytes, at: location, fingerprint: fingerprint, into: into)
    }
  }
  return content
}

/// Overwrites a file whatever it is.
func overwrite(_ path: String, _ bytes: [UInt8]) throws {
  let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_TRUNC)
  try unsafe bytes.withBytes { (bytes) throws(StrobeError) in try unsafe file.write(bytes, at: 0) }
}
