import ChangeDetection
import Glibc
import Platform
import SnapshotRepository
import Synchronization

/// Reads records back, on all cores, and checks each against its fingerprint. A record that was stored again
/// somewhere else is read there.
final class RecordCheck: Sendable {
  /// Records of one segment and one disk that lie in order: what a worker takes at a time.
  private struct Piece: Sendable {
    let segment: Int
    let records: ArraySlice<NeededRecord>
  }

  /// What could not be read, as it was asked for.
  struct Failure: Sendable {
    let segment: ObjectID
    let record: NeededRecord
    let error: StrobeError
  }

  private static let pieceSize = 64

  private let segments: [ObjectID]
  private let reader: ChunkReader
  private let chunkSize: Int
  private let progress: Progress
  private let stop: CancellationFlag
  private let queue: Mutex<[Piece]>
  private let found = Mutex<[Failure]>([])

  init(
    _ store: any ObjectStore, _ secret: FingerprintSecret, chunkSize: Int, segments: [ObjectID],
    records: [[NeededRecord]], progress: Progress, stop: CancellationFlag
  ) {
    self.segments = segments
    self.chunkSize = chunkSize
    self.progress = progress
    self.stop = stop
    reader = ChunkReader(store, secret, segments: segments)
    var pieces: [Piece] = []
    for (segment, list) in records.enumerated() {
      var start = 0
      while start < list.count {
        let end = min(start + Self.pieceSize, list.count)
        pieces.append(Piece(segment: segment, records: list[start..<end]))
        start = end
      }
    }
    queue = Mutex(pieces.reversed())
  }

  /// - Returns: what is damaged.
  /// - Throws: for what keeps it from looking.
  func run(workerCount: Int?) throws(StrobeError) -> [Failure] {
    let pieces = queue.withLock { $0.count }
    guard pieces > 0 else { return [] }
    let most =
      RestorePass.memoryBudget / (ChunkStream.memorySize(chunkSize: chunkSize) + chunkSize)
    let count = max(1, min(workerCount ?? processorCount(), pieces, most))
    try onWorkers(count, stop: stop) { _ throws(StrobeError) in
      var stream = ChunkStream(
        self.reader, ChunkGeometry(diskSize: 0, chunkSize: self.chunkSize))
      while let piece = self.queue.withLock({ $0.popLast() }) {
        try self.stop.check()
        try self.check(piece, &stream)
      }
    }
    return found.withLock { $0 }
  }

  private func check(
    _ piece: Piece, _ stream: inout ChunkStream
  ) throws(StrobeError) {
    let planned = piece.records.map {
      PlannedChunk(
        position: $0.position, fingerprint: $0.fingerprint,
        location: ChunkLocation(
          segment: UInt32(piece.segment), length: $0.length, offset: UInt64($0.offset)),
        length: Int($0.contentLength))
    }
    var sink = CheckSink(self, piece.records, segment: segments[piece.segment], chunkSize)
    try stream.read(planned, into: &sink)
  }

  fileprivate func completed(_ record: NeededRecord) {
    progress.add(done: Int(record.contentLength), transferred: Int(record.contentLength))
  }

  fileprivate func failed(
    _ record: NeededRecord, _ segment: ObjectID, _ error: StrobeError
  ) throws(StrobeError) {
    try stop.check()
    guard error.reason != .cancelled,
      error.isDamage || error.reason == .notFound
        || error.errno == EIO
    else { throw error }
    progress.add(done: Int(record.contentLength))
    found.withLock { $0.append(Failure(segment: segment, record: record, error: error)) }
  }
}

/// Takes the chunks of a piece one after another; each is told of exactly once, in order.
private struct CheckSink: ~Copyable, ChunkSink {
  private let check: RecordCheck
  private let records: ArraySlice<NeededRecord>
  private let segment: ObjectID
  private let content: AlignedBuffer
  private var next: Int

  init(
    _ check: RecordCheck, _ records: ArraySlice<NeededRecord>, segment: ObjectID, _ chunkSize: Int
  ) {
    self.check = check
    self.records = records
    self.segment = segment
    content = AlignedBuffer(count: chunkSize)
    next = records.startIndex
  }

  mutating func place(for position: Int, length: Int) throws(StrobeError)
    -> UnsafeMutableRawBufferPointer
  {
    unsafe UnsafeMutableRawBufferPointer(rebasing: content.bytes[..<length])
  }

  mutating func completed(_ position: Int) throws(StrobeError) {
    check.completed(records[next])
    next += 1
  }

  mutating func failed(_ position: Int, _ error: StrobeError) throws(StrobeError) {
    try check.failed(records[next], segment, error)
    next += 1
  }
}
