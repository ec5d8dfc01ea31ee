import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository
import Synchronization

/// The fingerprints of one group of the parent.
enum ParentGroup: Sendable {
  /// All chunks are zeros.
  case zeros
  case known(FingerprintBlock)
  /// The parent's own record is damaged: every chunk counts as changed.
  case unknown
}

/// 4,096 fingerprints of 16 bytes.
final class FingerprintBlock: @unchecked Sendable {
  // Sendable: filled before it is shared, then only read.
  private let memory = AlignedBuffer(count: FingerprintTable.blockSize)

  var bytes: UnsafeMutableRawBufferPointer { unsafe memory.bytes }

  func fingerprint(_ index: Int) -> Fingerprint {
    precondition(index >= 0 && index < ChunkGeometry.chunksPerGroup)
    return unsafe Fingerprint(at: UnsafeRawPointer(memory.address) + index * Fingerprint.byteCount)
  }
}

/// What a disk looked like at the parent point: from the head table where it can be believed, from the
/// layers where it can't.
final class ParentState: Sendable {
  let chain: Chain
  /// The head table, when it is whole and of this parent.
  let table: FingerprintTable?
  private let recent = Mutex<[(group: Int, state: ParentGroup)]>([])
  private let found = Mutex<[String]>([])

  init(_ chain: Chain, table: FingerprintTable?) {
    self.chain = chain
    self.table = table
  }

  /// Groups whose record is damaged; their chunks were stored again.
  var damage: [String] { found.withLock { $0 } }

  /// The fingerprints of a group, shared by the workers that scan it together.
  func group(_ group: Int) -> ParentGroup {
    guard group < chain.geometry.groupCount else { return .zeros }
    return recent.withLock { recent in
      if let known = recent.first(where: { $0.group == group }) { return known.state }
      let state = load(group)
      if recent.count >= 4 { recent.removeFirst() }
      recent.append((group, state))
      return state
    }
  }

  private func load(_ group: Int) -> ParentGroup {
    if let table {
      let block = FingerprintBlock()
      if let isStored = try? unsafe table.read(group: group, into: block.bytes) {
        return isStored ? .known(block) : .zeros
      }
    }
    guard chain.touches(group: group) else { return .zeros }
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    do throws(StrobeError) {
      try unsafe chain.resolve(group: group, into: map, scratch: scratch.bytes)
    } catch {
      found.withLock { $0.append(error.message) }
      return .unknown
    }
    let block = FingerprintBlock()
    unsafe block.bytes.copyMemory(from: map.fingerprints)
    return .known(block)
  }
}
