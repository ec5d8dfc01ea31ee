import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository

// Going on with a restore: what the target holds is read and compared, chunk by chunk, so that only what
// differs is written. Nothing is taken from what an earlier restore may have said or done.

/// What a target held before it was restored to.
final class TargetState: Sendable {
  let source: DiskSource
  /// Chunks that surely read as zeros, or nil when nothing is known.
  let holes: ChunkBitmap?

  init(
    _ target: DiskTarget, _ geometry: ChunkGeometry, stop: CancellationFlag
  ) throws(StrobeError) {
    source = try target.source(size: geometry.diskSize)
    holes = ScanRound.holes(source, geometry, stop)
  }
}

/// Compares stripes of a target with what they should hold; one a worker.
///
/// Memory: 4 buffers of 1 MiB, more with chunks above 1 MiB.
struct TargetComparison: ~Copyable {
  static let depth = 4

  private let pass: RestorePass
  private let state: TargetState
  private let chunksPerRequest: Int
  private var pipeline: ReadPipeline
  /// Positions of the stripe whose reads wait, last first, and of those in flight, oldest first.
  private var waiting: [Range<Int>] = []
  private var inFlight: [Range<Int>] = []
  private var zeroes = 0..<0

  init(_ pass: RestorePass, _ state: TargetState, requestSize: Int) throws(StrobeError) {
    self.pass = pass
    self.state = state
    chunksPerRequest = max(1, requestSize / pass.chain.geometry.chunkSize)
    pipeline = try ReadPipeline(
      source: state.source, depth: Self.depth, requestSize: requestSize, stop: pass.stop)
  }

  /// Starts to read what the target holds of a stripe; ``differing(_:)`` of it must follow.
  mutating func begin(_ stripe: RestoreStripe) throws(StrobeError) {
    let geometry = pass.chain.geometry
    var planned = stripe.chunks[...]
    for position in stripe.positions {
      let isPlanned = planned.first?.position == position
      if isPlanned { planned.removeFirst() }
      if !isPlanned && state.holes?[position] == true {
        pass.count(kept: geometry.length(of: position))
      } else if let last = waiting.last, last.upperBound == position,
        last.count < chunksPerRequest
      {
        waiting[waiting.count - 1] = last.lowerBound..<(position + 1)
      } else {
        waiting.append(position..<(position + 1))
      }
    }
    waiting.reverse()
    try fill()
  }

  private mutating func fill() throws(StrobeError) {
    let geometry = pass.chain.geometry
    while pipeline.hasRoom, let run = waiting.popLast() {
      let start = geometry.offset(of: run.lowerBound)
      let end = geometry.offset(of: run.upperBound - 1) + geometry.length(of: run.upperBound - 1)
      try pipeline.start(offset: start, length: end - start)
      inFlight.append(run)
    }
  }

  /// The chunks of the stripe that have to be written; what has to be zeros is zeroed.
  mutating func differing(_ stripe: RestoreStripe) throws(StrobeError) -> [PlannedChunk] {
    var planned = stripe.chunks[...]
    var differing: [PlannedChunk] = []
    while !inFlight.isEmpty {
      let run = inFlight.removeFirst()
      let bytes = try unsafe oldest()
      for position in run {
        let isPlanned = planned.first?.position == position
        let chunk = isPlanned ? planned.removeFirst() : nil
        let content = unsafe bytes.map { bytes in
          unsafe Self.content(of: position, in: bytes, run, pass.chain.geometry)
        }
        if unsafe isKept(content, chunk) {
          pass.count(kept: pass.chain.geometry.length(of: position))
        } else if let chunk {
          differing.append(chunk)
        } else {
          try zero(position)
        }
      }
      pipeline.release()
      try fill()
    }
    try flushZeroes()
    return differing
  }

  /// The bytes of the oldest read; nil when the target can't be read there, which is no reason not to write
  /// to it.
  private mutating func oldest() throws(StrobeError) -> UnsafeRawBufferPointer? {
    do throws(StrobeError) {
      return try unsafe UnsafeRawBufferPointer(pipeline.next())
    } catch {
      guard case .system = error.reason else { throw error }
      return nil
    }
  }

  private static func content(
    of position: Int, in bytes: UnsafeRawBufferPointer, _ run: Range<Int>, _ geometry: ChunkGeometry
  ) -> UnsafeRawBufferPointer {
    let start = geometry.offset(of: position) - geometry.offset(of: run.lowerBound)
    return unsafe UnsafeRawBufferPointer(
      rebasing: bytes[start..<(start + geometry.length(of: position))])
  }

  /// Whether the target holds what it should: zeros, or the chunk.
  private func isKept(_ content: UnsafeRawBufferPointer?, _ chunk: PlannedChunk?) -> Bool {
    guard let content = unsafe content else { return false }
    let isZeros = unsafe isZero(content)
    guard let chunk else { return isZeros }
    return unsafe !isZeros && pass.secret.fingerprint(of: content) == chunk.fingerprint
  }

  private mutating func zero(_ position: Int) throws(StrobeError) {
    let geometry = pass.chain.geometry
    let start = geometry.offset(of: position)
    if zeroes.upperBound != start { try flushZeroes() }
    zeroes = (zeroes.isEmpty ? start : zeroes.lowerBound)..<(start + geometry.length(of: position))
  }

  private mutating func flushZeroes() throws(StrobeError) {
    guard !zeroes.isEmpty else { return }
    try pass.target.zero(zeroes)
    pass.progress.add(done: zeroes.count)
    zeroes = 0..<0
  }
}
