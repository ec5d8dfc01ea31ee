import BlockDevices
import ChangeDetection
import Platform

/// Reads a few chunks that the tracker, or the hypervisor, says didn't change: one that did anyway means that something
/// writes to the disk past the tracker, and that none of its marks can be relied on.
///
/// A write that the tracker saw after its marks were taken is no lie: it marks a write before the disk
/// gets it, so a chunk that was read changed and isn't marked by then was never marked.
struct TrackerAudit {
  /// Chunks that are read: enough to find a tracker that misses a hundredth of the disk's changed chunks
  /// within a few passes, and constant, so that a pass costs what changed. Half of them are of those that had content:
  /// most of a large disk may be holes, in which another disk's image that took its place would go unseen.
  static let sampleCount = 64

  /// Nil where nobody writes to what is read.
  let disk: TrackedDisk?
  let source: DiskSource
  let capture: DiskCapture

  /// - Returns: the position of a chunk that changed unseen, or nil.
  func findLie(besides hinted: ChunkBitmap, stop: CancellationFlag) throws(StrobeError) -> Int? {
    let requestSize = max(capture.geometry.chunkSize, 4096)
    var pipeline = try ReadPipeline(
      source: source, depth: 8, requestSize: requestSize, stop: stop)
    let positions = sample(besides: hinted)
    var started = 0
    for position in positions {
      while pipeline.hasRoom && started < positions.count {
        let next = positions[started]
        try pipeline.start(
          offset: capture.geometry.offset(of: next), length: capture.geometry.length(of: next))
        started += 1
      }
      let content = try unsafe UnsafeRawBufferPointer(pipeline.next())
      let isChanged = unsafe differs(content, position)
      pipeline.release()
      capture.count(read: capture.geometry.length(of: position))
      if isChanged && disk?.wasWritten(position, capture.geometry) != true { return position }
    }
    return nil
  }

  private func sample(besides hinted: ChunkBitmap) -> [Int] {
    let count = capture.geometry.chunkCount
    guard count > 0 else { return [] }
    var chosen: Set<Int> = []
    let groups = groupsWithContent(limit: Self.sampleCount / 2)
    for _ in groups.count..<Self.sampleCount { chosen.insert(Int.random(in: 0..<count)) }
    for group in groups {
      if let position = chunkWithContent(in: group) { chosen.insert(position) }
    }
    return chosen.filter { !hinted[$0] }.sorted()
  }

  /// `limit` groups that hold content in the parent, at random, some of them repeatedly where there are fewer.
  private func groupsWithContent(limit: Int) -> [Int] {
    var found: [Int] = []
    for group in (0..<capture.geometry.groupCount).shuffled() where found.count < limit {
      if case .known = capture.parentGroup(group) { found.append(group) }
    }
    guard !found.isEmpty else { return [] }
    return (0..<limit).map { found[$0 % found.count] }
  }

  /// A chunk of the group that held content in the parent: the first one from a random place on.
  private func chunkWithContent(in group: Int) -> Int? {
    guard case .known(let block) = capture.parentGroup(group) else { return nil }
    let chunks = capture.geometry.positions(ofGroup: group)
    let start = Int.random(in: 0..<chunks.count)
    for step in 0..<chunks.count {
      let index = (start + step) % chunks.count
      if !block.fingerprint(index).isZero { return chunks.lowerBound + index }
    }
    return nil
  }

  private func differs(_ content: UnsafeRawBufferPointer, _ position: Int) -> Bool {
    let isZeros = unsafe isZero(content)
    switch capture.parentGroup(position / ChunkGeometry.chunksPerGroup) {
    case .unknown: return false
    case .zeros: return !isZeros
    case .known(let block):
      let known = block.fingerprint(position & (ChunkGeometry.chunksPerGroup - 1))
      return unsafe isZeros ? !known.isZero : known != capture.secret.fingerprint(of: content)
    }
  }
}
