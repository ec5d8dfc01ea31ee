import BlockDevices
import ChangeDetection
import Platform

// One worker a processor, nothing shared but the claim of the next stripe and the reservation of a
// range in the segment. A worker's reads come back in the order in which it asked for them, so its
// stripes follow one another, and each is written out as a whole.

/// One worker of a round.
struct ScanWorker: ~Copyable {
  /// Consecutive chunks that one request reads.
  private struct Run {
    var parent: ParentGroup
    var first: Int
    var count: Int
    var endsStripe: Bool
  }

  private let round: ScanRound
  private let capture: DiskCapture
  private let chunksPerRequest: Int
  private var pipeline: ReadPipeline
  private var recorder: ChunkRecorder
  /// Runs whose reads are in flight, oldest first, and those of the last claimed stripe that wait.
  private var inFlight: [Run] = []
  private var waiting: [Run] = []
  private var isExhausted = false

  init(_ round: ScanRound, _ memory: ScanMemory) throws(StrobeError) {
    self.round = round
    capture = round.capture
    chunksPerRequest = max(1, memory.requestSize / round.capture.geometry.chunkSize)
    pipeline = try ReadPipeline(
      source: round.source, depth: memory.depth, requestSize: memory.requestSize, stop: round.stop)
    recorder = ChunkRecorder(
      round.capture, outputSize: memory.outputSize, isRepeat: round.isRepeat)
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
      let geometry = capture.geometry
      let last = run.first + run.count - 1
      let length =
        geometry.offset(of: last) + geometry.length(of: last) - geometry.offset(of: run.first)
      try pipeline.start(offset: geometry.offset(of: run.first), length: length)
      inFlight.append(run)
    }
  }

  /// Claims a stripe, deals with what is known to be zeros, and lists what has to be read.
  private mutating func claim() throws(StrobeError) {
    try round.stop.check()
    guard let words = round.claim() else {
      isExhausted = true
      return
    }
    let parent = capture.parentGroup(words.lowerBound / ChunkGeometry.wordsPerGroup)
    for word in words {
      let wanted = round.wanted(word: word)
      let holes = round.holes(word: word) & wanted
      if holes != 0 {
        recorder.takeZeros(holes, word: word, parent)
        capture.progress.add(done: capture.byteCount(of: holes, word: word))
      }
      appendRuns(wanted & ~holes, word: word, parent)
    }
    waiting.reverse()
    if !waiting.isEmpty { waiting[0].endsStripe = true }
  }

  private mutating func appendRuns(_ bits: UInt64, word: Int, _ parent: ParentGroup) {
    forEachBit(of: bits) { bit in
      let position = word * 64 + bit
      if let last = waiting.indices.last, waiting[last].first + waiting[last].count == position,
        waiting[last].count < chunksPerRequest
      {
        waiting[last].count += 1
      } else {
        waiting.append(Run(parent: parent, first: position, count: 1, endsStripe: false))
      }
    }
  }

  private mutating func processOldest() throws(StrobeError) {
    let run = inFlight.removeFirst()
    let bytes = try unsafe UnsafeRawBufferPointer(pipeline.next())
    var offset = 0
    for position in run.first..<(run.first + run.count) {
      let length = capture.geometry.length(of: position)
      let content = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)])
      try unsafe recorder.take(content, position, run.parent)
      offset += length
    }
    pipeline.release()
    capture.count(read: offset)
    capture.progress.add(done: offset, transferred: offset)
    if run.endsStripe { try recorder.flush() }
  }
}
