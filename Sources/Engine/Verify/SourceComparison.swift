import BlockDevices
import ChangeDetection
public import Platform
import SnapshotRepository
import Synchronization

// Compares a disk as it is now with what the newest point says of it, by fingerprints: nothing is read from the
// repository but layers. It tells whether a snapshot saw what is there, so it is meant for a disk that is at rest:
// unmounted, frozen, of a guest that is off. What was written since the point differs, and is told so.

/// What a comparison of disks with a point found.
public struct SourceReport: Sendable {
  public struct Disk: Sendable {
    public let name: String
    public let source: String
    /// Bytes read.
    public let readBytes: Int
    /// Bytes of the disk that differ, in order; whole chunks.
    public let differences: [Range<Int>]
    /// Whether the disk may have been written to while it was read.
    public let mayHaveBeenWritten: Bool
  }

  /// 24 hexadecimal digits.
  public let point: String
  public let disks: [Disk]
  /// Wall-clock seconds.
  public let seconds: Double

  /// Whether all disks are what the point says.
  public var isSame: Bool { disks.allSatisfy { $0.differences.isEmpty } }
}

extension SnapshotEngine {
  /// Compares the disks that a collection remembers with its newest point.
  ///
  /// - Throws: `notFound` when there is no point or a disk is gone, `refused` when a disk is another
  ///   device or has another size than at the point.
  public func compareWithSource(
    _ collection: String, workerCount: Int? = nil, progress: Progress = Progress(),
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> SourceReport {
    let start = monotonicSeconds()
    let (point, lock) = try hold(PointReference("\(collection)@latest"))
    defer { lock.release() }
    let remembered = (try? CollectionRecord.read(repository.store, collection))?.disks ?? []
    var disks: [SourceReport.Disk] = []
    progress.expect(point.disks.reduce(0) { $0 + $1.size })
    for disk in point.disks {
      let path = remembered.first { $0.name == disk.name }?.source ?? disk.source
      let source = try DiskSource.open(DiskLocator(path), stop: stop)
      try Self.check(source, disk)
      let comparison = try SourceComparison(
        repository, point, disk, source, progress: progress, stop: stop)
      disks.append(try comparison.run(workerCount: workerCount))
    }
    return SourceReport(point: point.id, disks: disks, seconds: monotonicSeconds() - start)
  }

  private static func check(
    _ source: DiskSource, _ disk: DiskRestorePoint
  ) throws(StrobeError) {
    guard source.size == disk.size else {
      throw StrobeError(
        .refused,
        "disk \(disk.name): \(source.path) has \(source.size) bytes, at the point it had \(disk.size)",
        advice: "take a new point")
    }
    guard source.identity.text == disk.identity else {
      throw StrobeError(
        .refused, "disk \(disk.name): \(source.path) is another device than at the point",
        advice: "take a new point, with --same-disk \(disk.name) if it is a copy of the old one")
    }
  }
}

/// One disk that is compared.
private final class SourceComparison: Sendable {
  private static let requestSize = 512 << 10
  private static let depth = 4

  private let disk: DiskRestorePoint
  private let source: DiskSource
  private let state: ParentState
  private let secret: FingerprintSecret
  private let progress: Progress
  private let stop: CancellationFlag
  private let nextWord = Atomic<Int>(0)
  private let found = Mutex<[Int]>([])

  init(
    _ repository: Repository, _ point: RestorePoint, _ disk: DiskRestorePoint,
    _ source: DiskSource, progress: Progress, stop: CancellationFlag
  ) throws(StrobeError) {
    guard let secret = point.secret else {
      preconditionFailure("a point that was read has a secret")
    }
    self.disk = disk
    self.source = source
    self.secret = secret
    self.progress = progress
    self.stop = stop
    // Not the head table: it is a cache, and what is asked is what the layers say.
    state = ParentState(
      try Chain(
        repository.store, layers: disk.layerIDs,
        geometry: ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize)), table: nil)
  }

  private var geometry: ChunkGeometry { state.chain.geometry }

  func run(workerCount: Int?) throws(StrobeError) -> SourceReport.Disk {
    let before = try WriteMark(of: source)
    let workers = min(workerCount ?? processorCount(), source.readerLimit)
    try onWorkers(workers, stop: stop) { _ throws(StrobeError) in
      try self.work()
    }
    if let message = state.damage.first {
      throw .damaged("disk \(disk.name)", expected: "layers that can be read", found: message)
    }
    let after = try WriteMark(of: source)
    return SourceReport.Disk(
      name: disk.name, source: source.path, readBytes: disk.size, differences: ranges(),
      mayHaveBeenWritten: before != after)
  }

  private func work() throws(StrobeError) {
    let size = max(Self.requestSize, geometry.chunkSize)
    let chunksPerRequest = size / geometry.chunkSize
    var pipeline = try ReadPipeline(
      source: source, depth: Self.depth, requestSize: size, stop: stop)
    var requests: [Range<Int>] = []
    var waiting: [Range<Int>] = []
    while true {
      while pipeline.hasRoom {
        if waiting.isEmpty { waiting = claim(chunksPerRequest) }
        guard let positions = waiting.popLast() else { break }
        let start = geometry.offset(of: positions.lowerBound)
        let last = positions.upperBound - 1
        let end = geometry.offset(of: last) + geometry.length(of: last)
        try pipeline.start(offset: start, length: end - start)
        requests.append(positions)
      }
      guard !requests.isEmpty else { return }
      let positions = requests.removeFirst()
      let bytes = try unsafe UnsafeRawBufferPointer(pipeline.next())
      unsafe compare(positions, bytes)
      pipeline.release()
      progress.add(done: bytes.count, transferred: bytes.count)
    }
  }

  /// The requests of the next few MiB, last first; none when the disk is done.
  private func claim(_ chunksPerRequest: Int) -> [Range<Int>] {
    let words = max(1, (4 << 20) / (geometry.chunkSize * ChunkGeometry.chunksPerWord))
    let first = nextWord.wrappingAdd(words, ordering: .relaxed).oldValue
    let start = first * ChunkGeometry.chunksPerWord
    let end = min((first + words) * ChunkGeometry.chunksPerWord, geometry.chunkCount)
    guard start < end else { return [] }
    return stride(from: start, to: end, by: chunksPerRequest).map {
      $0..<min($0 + chunksPerRequest, end)
    }.reversed()
  }

  private func compare(_ positions: Range<Int>, _ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    for position in positions {
      let length = geometry.length(of: position)
      let content = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)])
      let isHole = unsafe isZero(content)
      let fingerprint = unsafe isHole ? Fingerprint.zero : secret.fingerprint(of: content)
      if fingerprint != expected(position) { found.withLock { $0.append(position) } }
      offset += length
    }
  }

  private func expected(_ position: Int) -> Fingerprint? {
    switch state.group(position / ChunkGeometry.chunksPerGroup) {
    case .zeros: .zero
    case .known(let block): block.fingerprint(position % ChunkGeometry.chunksPerGroup)
    case .unknown: nil
    }
  }

  private func ranges() -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    for position in found.withLock({ $0.sorted() }) {
      let start = geometry.offset(of: position)
      let end = start + geometry.length(of: position)
      if let last = ranges.last, last.upperBound == start {
        ranges[ranges.count - 1] = last.lowerBound..<end
      } else {
        ranges.append(start..<end)
      }
    }
    return ranges
  }
}
