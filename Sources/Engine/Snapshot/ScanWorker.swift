import BlockDevices
import ChangeDetection
import ChunkCodec
import Platform
import SnapshotRepository

// The hot loop: for each chunk: zero? → fingerprint → differs from the parent's? → LZ4 → output buffer.
//
// One worker a processor, nothing shared but the claim of the next stripe and the reservation of a
// range in the segment. A worker's reads come back in the order in which it asked for them, so its
// stripes follow one another, and each is written out as a whole.

/// One worker of a scan.
struct ScanWorker: ~Copyable {
  /// Consecutive chunks that one request reads.
  private struct Run {
    var stripe: Stripe
    var first: Int
    var count: Int
    var endsStripe: Bool
  }

  /// Words claimed together, and the parent's fingerprints of their group.
  private struct Stripe {
    var words: Range<Int>
    var parent: ParentGroup
  }

  private let scan: DiskScan
  private let chunksPerRequest: Int
  private var pipeline: ReadPipeline
  private var encoder = ChunkEncoder()
  private var output: RecordBuffer
  /// Runs whose reads are in flight, oldest first, and those of the last claimed stripe that wait.
  private var inFlight: [Run] = []
  private var waiting: [Run] = []
  private var isExhausted = false

  init(_ scan: DiskScan, _ memory: ScanMemory) throws(StrobeError) {
    self.scan = scan
    chunksPerRequest = max(1, memory.requestSize / scan.geometry.chunkSize)
    pipeline = try ReadPipeline(
      source: scan.source, depth: memory.depth, requestSize: memory.requestSize, stop: scan.stop)
    output = RecordBuffer(scan, capacity: memory.outputSize)
    inFlight.reserveCapacity(memory.depth)
  }

  /// Scans stripes until there are none left.
  mutating func run() throws(StrobeError) {
    while true {
      try fill()
      guard !pipeline.isEmpty else { return }
      try processOldest()
    }
  }

  /// Starts as many reads as there is room for.
  private mutating func fill() throws(StrobeError) {
    while pipeline.hasRoom {
      while waiting.isEmpty && !isExhausted { try claim() }
      guard let run = waiting.popLast() else { return }
      let geometry = scan.geometry
      let last = run.first + run.count - 1
      let length =
        geometry.offset(of: last) + geometry.length(of: last) - geometry.offset(of: run.first)
      try pipeline.start(offset: geometry.offset(of: run.first), length: length)
      inFlight.append(run)
    }
  }

  /// Claims a stripe, deals with what is known to be zeros, and lists what has to be read.
  private mutating func claim() throws(StrobeError) {
    try scan.stop.check()
    guard let words = scan.claim() else {
      isExhausted = true
      return
    }
    let group = words.lowerBound / ChunkGeometry.wordsPerGroup
    let stripe = Stripe(words: words, parent: scan.parent?.group(group) ?? .zeros)
    for word in words {
      let existing = scan.existing(word: word)
      let holes = scan.holes(word: word) & existing
      if holes != 0 { skip(holes, word: word, stripe) }
      appendRuns(existing & ~holes, word: word, stripe)
    }
    waiting.reverse()
    if !waiting.isEmpty { waiting[0].endsStripe = true }
  }

  private mutating func skip(_ holes: UInt64, word: Int, _ stripe: Stripe) {
    var bytes = holes.nonzeroBitCount * scan.geometry.chunkSize
    let last = word * 64 + 63 - holes.leadingZeroBitCount
    bytes -= scan.geometry.chunkSize - scan.geometry.length(of: last)
    scan.progress.add(done: bytes)
    // Terabytes of holes pass here: 64 chunks a step where the parent has none of them.
    if case .zeros = stripe.parent { return }
    forEachBit(of: holes) { bit in markZero(word * 64 + bit, stripe.parent) }
  }

  private mutating func appendRuns(_ bits: UInt64, word: Int, _ stripe: Stripe) {
    forEachBit(of: bits) { bit in
      let position = word * 64 + bit
      if let last = waiting.indices.last, waiting[last].first + waiting[last].count == position,
        waiting[last].count < chunksPerRequest
      {
        waiting[last].count += 1
      } else {
        waiting.append(Run(stripe: stripe, first: position, count: 1, endsStripe: false))
      }
    }
  }

  private mutating func processOldest() throws(StrobeError) {
    let run = inFlight.removeFirst()
    let bytes = try unsafe UnsafeRawBufferPointer(pipeline.next())
    var offset = 0
    for position in run.first..<(run.first + run.count) {
      let length = scan.geometry.length(of: position)
      let content = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)])
      try unsafe process(content, position, run.stripe.parent)
      offset += length
    }
    pipeline.release()
    scan.count(read: offset)
    scan.progress.add(done: offset, transferred: offset)
    if run.endsStripe { try output.flush() }
  }

  @inline(__always)
  private mutating func process(
    _ content: UnsafeRawBufferPointer, _ position: Int, _ parent: ParentGroup
  ) throws(StrobeError) {
    if unsafe isZero(content) {
      markZero(position, parent)
      return
    }
    let fingerprint = unsafe scan.secret.fingerprint(of: content)
    if case .known(let block) = parent,
      block.fingerprint(position & (ChunkGeometry.chunksPerGroup - 1)) == fingerprint
    {
      return
    }
    scan.changed[position] = true
    scan.stored[position] = true
    scan.count(changed: content.count)
    try unsafe output.append(content, position, fingerprint, &encoder)
  }

  /// A chunk of zeros is a change only where the parent has content.
  private func markZero(_ position: Int, _ parent: ParentGroup) {
    switch parent {
    case .zeros: return
    case .known(let block):
      if block.fingerprint(position & (ChunkGeometry.chunksPerGroup - 1)).isZero { return }
    case .unknown: break
    }
    scan.changed[position] = true
  }
}
