import ChangeDetection
import Platform
import SnapshotRepository
import Synchronization

/// Reads the chunks of one disk restore point that an older point didn't have at the same place, and
/// checks each.
final class VerifyPass: Sendable {
  private let disk: DiskRestorePoint
  private let chain: Chain
  private let reader: ChunkReader
  private let progress: Progress
  private let stop: CancellationFlag
  private let queue = Mutex<[[PlannedChunk]]>([])
  private let damage = Mutex<[(position: Int, error: StrobeError)]>([])
  private let checked = Atomic<Int>(0)

  /// Chunks that a worker takes at a time.
  private static let batch = 64

  init(
    _ repository: Repository, _ secret: FingerprintSecret, _ disk: DiskRestorePoint, _ chain: Chain,
    progress: Progress, stop: CancellationFlag
  ) {
    self.disk = disk
    self.chain = chain
    self.progress = progress
    self.stop = stop
    reader = ChunkReader(repository.store, secret, segments: chain.segments)
  }

  var checkedChunks: Int { checked.load(ordering: .relaxed) }

  /// Checks what is new against `old`, or everything without it.
  func run(
    since old: Chain?, workerCount: Int?
  ) throws(StrobeError) -> [(position: Int, error: StrobeError)] {
    let geometry = chain.geometry
    try MapDelta(old: old, new: chain).forEachGroup(stop: stop) {
      (group, oldMap, newMap) throws(StrobeError) in
      let plan = newMap.plan(
        words: 0..<ChunkGeometry.wordsPerGroup, firstPosition: group * ChunkGeometry.chunksPerGroup)
      let fresh = plan.filter { chunk in
        !self.isSame(
          chunk, oldMap, old, index: chunk.position - group * ChunkGeometry.chunksPerGroup)
      }
      try self.check(fresh, geometry, workerCount)
    }
    return damage.withLock { $0.sorted { $0.position < $1.position } }
  }

  private func isSame(_ chunk: PlannedChunk, _ oldMap: GroupMap, _ old: Chain?, index: Int) -> Bool
  {
    guard let old, oldMap.isStored(index) else { return false }
    let other = oldMap.location(index)
    return other.offset == chunk.location.offset && other.length == chunk.location.length
      && oldMap.fingerprint(index) == chunk.fingerprint
      && old.segments[Int(other.segment)] == chain.segments[Int(chunk.location.segment)]
  }

  private func check(
    _ chunks: [PlannedChunk], _ geometry: ChunkGeometry, _ workerCount: Int?
  ) throws(StrobeError) {
    guard !chunks.isEmpty else { return }
    let batches = stride(from: 0, to: chunks.count, by: Self.batch).map {
      Array(chunks[$0..<min($0 + Self.batch, chunks.count)])
    }
    queue.withLock { $0 = batches.reversed() }
    let most =
      RestorePass.memoryBudget
      / (ChunkStream.memorySize(chunkSize: geometry.chunkSize) + geometry.chunkSize)
    let count = max(1, min(workerCount ?? processorCount(), batches.count, most))
    try onWorkers(count, stop: stop) { _ throws(StrobeError) in
      var stream = ChunkStream(self.reader, geometry)
      var sink = CheckSink(self, geometry)
      while let batch = self.queue.withLock({ $0.popLast() }) {
        try self.stop.check()
        try stream.read(batch, into: &sink)
      }
    }
  }

  fileprivate func completed(_ bytes: Int) {
    checked.wrappingAdd(1, ordering: .relaxed)
    progress.add(done: bytes, transferred: bytes)
  }

  fileprivate func failed(_ position: Int, _ error: StrobeError) throws(StrobeError) {
    try stop.check()
    guard error.reason != .cancelled else { throw error }
    damage.withLock { $0.append((position, error)) }
  }
}

private struct CheckSink: ~Copyable, ChunkSink {
  private let pass: VerifyPass
  private let geometry: ChunkGeometry
  private let content: AlignedBuffer

  init(_ pass: VerifyPass, _ geometry: ChunkGeometry) {
    self.pass = pass
    self.geometry = geometry
    content = AlignedBuffer(count: geometry.chunkSize)
  }

  mutating func place(for position: Int, length: Int) throws(StrobeError)
    -> UnsafeMutableRawBufferPointer
  {
    unsafe UnsafeMutableRawBufferPointer(rebasing: content.bytes[..<length])
  }

  mutating func completed(_ position: Int) throws(StrobeError) {
    pass.completed(geometry.length(of: position))
  }

  mutating func failed(_ position: Int, _ error: StrobeError) throws(StrobeError) {
    try pass.failed(position, error)
  }
}
