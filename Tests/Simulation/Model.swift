import Engine
import Glibc

/// Plain copies of all disks of a machine.
struct MachineState {
  let disks: [String: [UInt8]]
  /// Which of the files that had a disk's name it was.
  let generations: [String: Int]
}

/// What a restore point must be.
struct PointModel {
  let id: String
  let state: MachineState
  var disks: [String: [UInt8]] { state.disks }
  /// As the repository said when the point was first listed; nanoseconds.
  var created = 0
  var sequence = 0
  var isProtected = false
}

/// A simulated machine: its disks now, and its points in the order of their commits.
final class CollectionModel {
  let name: String
  let chunkSize: Int
  var disks: [SourceDisk]
  var points: [PointModel] = []
  /// Whether passes ran at once, so that only the repository knows the order of their points.
  var isOrderUnknown = false
  /// The newest point when everything was last read back and found good; nil when something rotted since.
  var verified: String?
  /// Names that no disk ever had.
  private var diskCount = 0

  init(_ name: String, chunkSize: Int) {
    self.name = name
    self.chunkSize = chunkSize
    disks = []
  }

  /// A name for one more disk.
  func nextDiskName() -> String {
    diskCount += 1
    return "d\(diskCount)"
  }

  /// What a point taken now would have to hold.
  var current: MachineState {
    MachineState(
      disks: Dictionary(uniqueKeysWithValues: disks.map { ($0.name, $0.content) }),
      generations: Dictionary(uniqueKeysWithValues: disks.map { ($0.name, $0.generation) }))
  }

  /// Disks whose file is another one than at the newest point.
  var replaced: [String] {
    guard let newest = points.last else { return [] }
    return disks.filter { disk in
      newest.state.generations[disk.name].map { $0 != disk.generation } ?? false
    }.map(\.name)
  }

  func reference(_ id: String) -> PointReference { try! PointReference("\(name)@\(id)") }

  func contains(_ id: String) -> Bool { points.contains { $0.id == id } }
}

/// What `difference` must say of one disk of two points, from the copies alone.
func expectedRanges(_ before: [UInt8], _ after: [UInt8], chunkSize: Int) -> [ChangedRange] {
  var ranges: [ChangedRange] = []
  forEachChangedChunk(before, after, chunkSize: chunkSize) { start, count, isZero in
    let kind: ChangedRange.Kind = isZero ? .cleared : .changed
    if let last = ranges.last, last.kind == kind, last.offset + last.length == start {
      ranges[ranges.count - 1] = ChangedRange(
        kind: kind, offset: last.offset, length: last.length + count)
    } else {
      ranges.append(ChangedRange(kind: kind, offset: start, length: count))
    }
  }
  return ranges
}

/// How many chunks a pass has to find changed.
func expectedChangeCount(_ before: [UInt8], _ after: [UInt8], chunkSize: Int) -> Int {
  var count = 0
  forEachChangedChunk(before, after, chunkSize: chunkSize) { _, _, _ in count += 1 }
  return count
}

/// Calls `body(offset, length, isZero)` for each chunk of `after` that isn't what `before` has there. What
/// lies beyond the end of `before` was zeros.
private func forEachChangedChunk(
  _ before: [UInt8], _ after: [UInt8], chunkSize: Int, _ body: (Int, Int, Bool) -> Void
) {
  for start in stride(from: 0, to: after.count, by: chunkSize) {
    let now = after[start..<min(start + chunkSize, after.count)]
    let then = before[min(start, before.count)..<min(start + chunkSize, before.count)]
    if now.count == then.count && isEqual(now, then) { continue }
    let isZero = isZeros(now)
    if isZero && isZeros(then) { continue }
    body(start, now.count, isZero)
  }
}

private func isEqual(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>) -> Bool {
  unsafe left.withUnsafeBytes { left in
    unsafe right.withUnsafeBytes { right in
      unsafe left.count == right.count
        && (left.isEmpty || memcmp(left.baseAddress!, right.baseAddress!, left.count) == 0)
    }
  }
}

private func isZeros(_ bytes: ArraySlice<UInt8>) -> Bool { bytes.allSatisfy { $0 == 0 } }
