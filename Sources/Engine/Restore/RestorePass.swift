import BlockDevices
import ChangeDetection
import Glibc
import Platform
import SnapshotRepository
import Synchronization

// Restoring one disk: first what is zeros, in ranges as long as they come, then the chunks, in stripes
// that the workers claim. Every chunk is checked before it is written; at the end everything is flushed.
// When it goes on with an interrupted one, each stripe of the target is read first (`TargetComparison.swift`).
//
// Memory of a worker: 2 MiB of records and 4 buffers of 1 MiB, 8 to go on; more with chunks above 1 MiB.

/// What a worker restores at a time.
struct RestoreStripe {
  let positions: Range<Int>
  /// Those of them that hold content.
  let chunks: [PlannedChunk]
}

/// One disk on its way to its target.
final class RestorePass: Sendable {
  let disk: DiskRestorePoint
  let chain: Chain
  let reader: ChunkReader
  let secret: FingerprintSecret
  let target: DiskTarget
  let progress: Progress
  let stop: CancellationFlag
  private let nextStripe = Atomic<Int>(0)
  private let written = Atomic<Int>(0)
  private let kept = Atomic<Int>(0)
  private let resumes: Bool
  let allowsDamage: Bool
  private let damage = Mutex<[Range<Int>]>([])

  static let memoryBudget = 160 << 20

  init(
    _ repository: Repository, _ point: RestorePoint, _ disk: DiskRestorePoint, target: DiskTarget,
    _ options: RestoreOptions, progress: Progress, stop: CancellationFlag
  ) throws(StrobeError) {
    guard let secret = point.secret else {
      preconditionFailure("a point that was read has a secret")
    }
    self.disk = disk
    self.secret = secret
    resumes = options.resumes
    allowsDamage = options.allowsDamage
    chain = try Chain(
      repository.store, layers: disk.layerIDs,
      geometry: ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize))
    reader = ChunkReader(repository.store, secret, segments: chain.segments)
    self.target = target
    self.progress = progress
    self.stop = stop
  }

  /// Bytes of content written so far.
  var writtenBytes: Int { written.load(ordering: .relaxed) }

  /// Bytes that were there before.
  var keptBytes: Int { kept.load(ordering: .relaxed) }

  /// Bytes of the disk that could not be read, in order.
  var damagedRanges: [Range<Int>] {
    var ranges: [Range<Int>] = []
    for range in damage.withLock({ $0.sorted { $0.lowerBound < $1.lowerBound } }) {
      if let last = ranges.last, last.upperBound == range.lowerBound {
        ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
      } else {
        ranges.append(range)
      }
    }
    return ranges
  }

  /// Zeros stand for what can't be read.
  func note(damaged range: Range<Int>) { damage.withLock { $0.append(range) } }

  /// Whether there is something in the target that was worth the time.
  var hasContent: Bool { target.isResumed || writtenBytes > 0 }

  /// Restores the disk, durably; a file has its name only after ``DiskTarget/finish()``.
  func run(workerCount: Int?) throws(StrobeError) {
    let requestSize = max(1 << 20, chain.geometry.chunkSize)
    let memory = ChunkStream.memorySize(chunkSize: chain.geometry.chunkSize)
    let buffers = resumes ? 4 + TargetComparison.depth : 4
    let count = max(
      1,
      min(
        workerCount ?? processorCount(), Self.memoryBudget / (buffers * requestSize + memory),
        target.writerLimit))
    if resumes {
      let state = try TargetState(target, chain.geometry, stop: stop)
      try onWorkers(count, stop: stop) { _ throws(StrobeError) in
        var worker = try RestoreWorker(self, requestSize: requestSize)
        try worker.goOn(TargetComparison(self, state, requestSize: requestSize))
      }
    } else {
      try zero()
      try onWorkers(count, stop: stop) { _ throws(StrobeError) in
        var worker = try RestoreWorker(self, requestSize: requestSize)
        try worker.run()
      }
    }
    try target.synchronize()
  }

  /// Zeroes every range without content; a new file has nothing but holes.
  private func zero() throws(StrobeError) {
    guard target.isDevice else { return }
    let geometry = chain.geometry
    var pending = 0..<0
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for group in 0..<geometry.groupCount {
      try stop.check()
      do throws(StrobeError) {
        try unsafe chain.resolve(group: group, into: map, scratch: scratch.bytes)
      } catch {
        guard allowsDamage, error.isUnreadable else { throw error }
        // All of it; `claim` notes it.
        map.reset()
      }
      let positions = geometry.positions(ofGroup: group)
      for position in positions where !map.isStored(position - positions.lowerBound) {
        let start = geometry.offset(of: position)
        let end = start + geometry.length(of: position)
        if pending.upperBound == start && pending.count < 1 << 30 {
          pending = pending.lowerBound..<end
        } else {
          try target.zero(pending)
          try stop.check()
          pending = start..<end
        }
      }
    }
    try target.zero(pending)
  }

  private var wordsPerStripe: Int {
    let stripe = max(1, (4 << 20) / (chain.geometry.chunkSize * ChunkGeometry.chunksPerWord))
    return min(stripe, ChunkGeometry.wordsPerGroup)
  }

  /// The next stripe, or nil when the disk is done. Without content there is none, but when what is on the
  /// target is compared.
  func claim() throws(StrobeError) -> RestoreStripe? {
    let words = wordsPerStripe
    while true {
      try stop.check()
      let first = nextStripe.wrappingAdd(words, ordering: .relaxed).oldValue
      guard first < chain.geometry.wordCount else { return nil }
      let group = first / ChunkGeometry.wordsPerGroup
      let firstPosition = group * ChunkGeometry.chunksPerGroup
      let range =
        (first % ChunkGeometry.wordsPerGroup)..<(first % ChunkGeometry.wordsPerGroup + words)
      var chunks: [PlannedChunk] = []
      var next = first + words
      var isDamaged = false
      if chain.touches(group: group) {
        do throws(StrobeError) {
          chunks = try chain.resolved(group: group).plan(
            words: range, firstPosition: firstPosition)
        } catch {
          guard allowsDamage, error.isUnreadable else { throw error }
          isDamaged = true
        }
      } else if !resumes {
        // Nothing in the rest of the group: one step over it, unless another worker went on already.
        let end = (group + 1) * ChunkGeometry.wordsPerGroup
        if nextStripe.compareExchange(expected: next, desired: end, ordering: .relaxed).exchanged {
          next = end
        }
      }
      let firstOfStripe = first * ChunkGeometry.chunksPerWord
      let endOfStripe = min(next * ChunkGeometry.chunksPerWord, chain.geometry.chunkCount)
      let positions = firstOfStripe..<endOfStripe
      if isDamaged {
        let end = min(endOfStripe * chain.geometry.chunkSize, disk.size)
        note(damaged: (firstOfStripe * chain.geometry.chunkSize)..<end)
      }
      if resumes { return RestoreStripe(positions: positions, chunks: chunks) }
      let start = first * ChunkGeometry.chunksPerWord * chain.geometry.chunkSize
      let end = min(next * ChunkGeometry.chunksPerWord * chain.geometry.chunkSize, disk.size)
      let content = chunks.reduce(0) { $0 + chain.geometry.length(of: $1.position) }
      progress.add(done: end - start - content)
      if !chunks.isEmpty { return RestoreStripe(positions: positions, chunks: chunks) }
    }
  }

  func count(kept bytes: Int) {
    kept.wrappingAdd(bytes, ordering: .relaxed)
    progress.add(done: bytes)
  }

  func count(_ bytes: Int) {
    written.wrappingAdd(bytes, ordering: .relaxed)
    progress.add(done: bytes, transferred: bytes)
  }
}

/// One worker of a restore.
struct RestoreWorker: ~Copyable {
  private let pass: RestorePass
  private var stream: ChunkStream
  private var sink: TargetSink

  init(_ pass: RestorePass, requestSize: Int) throws(StrobeError) {
    self.pass = pass
    stream = ChunkStream(pass.reader, pass.chain.geometry)
    sink = try TargetSink(pass, requestSize: requestSize)
  }

  mutating func run() throws(StrobeError) {
    var current = try pass.claim()
    while let stripe = current {
      // The next stripe's records are on their way while this one is decompressed.
      let next = try pass.claim()
      if let next { stream.prefetch(next.chunks) }
      try stream.read(stripe.chunks, into: &sink)
      try sink.flush()
      current = next
    }
    try sink.finish()
  }

  /// Restores what differs.
  mutating func goOn(_ comparison: consuming TargetComparison) throws(StrobeError) {
    var current = try pass.claim()
    if let current { try comparison.begin(current) }
    while let stripe = current {
      let chunks = try comparison.differing(stripe)
      current = try pass.claim()
      // The next stripe of the target is on its way while this one is written.
      if let current { try comparison.begin(current) }
      try stream.read(chunks, into: &sink)
      try sink.flush()
    }
    try sink.finish()
  }
}

/// Collects consecutive chunks into large writes.
private struct TargetSink: ~Copyable, ChunkSink {
  private let pass: RestorePass
  private var pipeline: WritePipeline
  private let requestSize: Int
  private var start = 0
  private var used = 0

  init(_ pass: RestorePass, requestSize: Int) throws(StrobeError) {
    self.pass = pass
    self.requestSize = requestSize
    pipeline = try WritePipeline(
      target: pass.target, depth: 4, requestSize: requestSize, stop: pass.stop)
  }

  mutating func place(for position: Int, length: Int) throws(StrobeError)
    -> UnsafeMutableRawBufferPointer
  {
    let offset = pass.chain.geometry.offset(of: position)
    if used > 0 && (offset != start + used || used + length > requestSize) { try flush() }
    if used == 0 { start = offset }
    return unsafe UnsafeMutableRawBufferPointer(rebasing: pipeline.buffer[used..<(used + length)])
  }

  mutating func completed(_ position: Int) throws(StrobeError) {
    used += pass.chain.geometry.length(of: position)
  }

  mutating func failed(_ position: Int, _ error: StrobeError) throws(StrobeError) {
    guard error.isUnreadable || error.reason == .notFound else { throw error }
    let offset = pass.chain.geometry.offset(of: position)
    let length = pass.chain.geometry.length(of: position)
    let end = offset + length
    if pass.allowsDamage {
      pass.note(damaged: offset..<end)
      let place = try unsafe place(for: position, length: length)
      unsafe memset(place.baseAddress!, 0, length)
      try completed(position)
      return
    }
    throw error.explained(
      "disk \(pass.disk.name), bytes \(offset) to \(end - 1): \(error.message)",
      advice:
        "run strobe verify to see what is damaged; other points may still hold these bytes; with "
        + "--allow-damaged zeros are written there")
  }

  mutating func flush() throws(StrobeError) {
    guard used > 0 else { return }
    try pass.stop.check()
    let count = used
    used = 0
    try pipeline.write(count: count, at: start)
    pass.count(count)
  }

  mutating func finish() throws(StrobeError) {
    try flush()
    try pipeline.drain()
  }
}
