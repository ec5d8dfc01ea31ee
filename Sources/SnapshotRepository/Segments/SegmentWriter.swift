package import Platform
import Synchronization

/// Appends ranges of records to a pass's segments, from any thread.
///
/// A range is reserved under a lock and written outside it, so that nothing waits for anything. A
/// segment that reached its size is made durable by whoever writes to it last.
package final class SegmentWriter: Sendable {
  /// The size from which on a segment takes no further range, in bytes.
  package static let directoryRollover = 1 << 30

  private final class Segment: Sendable {
    let number: UInt32
    let writer: any ObjectWriter

    init(number: UInt32, writer: any ObjectWriter) {
      self.number = number
      self.writer = writer
    }
  }

  private struct State {
    var current: Segment?
    var tail = 0
    var ids: [ObjectID] = []
    var pending: [Int] = []
    var closed: [Bool] = []
    var storedBytes = 0
  }

  private let store: any ObjectStore
  private let pass: PassID
  private let rollover: Int
  private let state = Mutex(State())

  package init(_ store: any ObjectStore, _ pass: PassID, rollover: Int = directoryRollover) {
    self.store = store
    self.pass = pass
    self.rollover = rollover
  }

  /// The segments so far; a location's segment number counts them.
  package var ids: [ObjectID] { state.withLock { $0.ids } }

  /// Bytes of records so far.
  package var storedBytes: Int { state.withLock { $0.storedBytes } }

  /// Writes records one after another into one segment.
  ///
  /// - Returns: the segment's number and the offset of the first byte.
  package func append(
    _ records: UnsafeRawBufferPointer
  ) throws(StrobeError) -> (segment: UInt32, offset: Int) {
    let count = records.count
    let (segment, offset) = try state.withLock { (state) throws(StrobeError) -> (Segment, Int) in
      let segment = try current(&state)
      let offset = state.tail
      state.tail += count
      state.storedBytes += count
      state.pending[Int(segment.number)] += 1
      if state.tail >= rollover {
        state.closed[Int(segment.number)] = true
        state.current = nil
      }
      return (segment, offset)
    }
    try unsafe segment.writer.write(records, at: offset)
    let isLast = state.withLock { state in
      state.pending[Int(segment.number)] -= 1
      return state.closed[Int(segment.number)] && state.pending[Int(segment.number)] == 0
    }
    if isLast { try segment.writer.finish() }
    return (segment.number, offset)
  }

  private func current(_ state: inout State) throws(StrobeError) -> Segment {
    if let current = state.current { return current }
    let number = UInt32(state.ids.count)
    let id = pass.object(number)
    let segment = Segment(number: number, writer: try store.create(id.segmentName))
    // Known by name from here on, so that a pass that fails can remove it.
    state.ids.append(id)
    state.pending.append(0)
    state.closed.append(false)
    try unsafe SegmentFormat.header(id).withBytes { (bytes) throws(StrobeError) in
      try unsafe segment.writer.write(bytes, at: 0)
    }
    state.current = segment
    state.tail = SegmentFormat.headerSize
    return segment
  }

  /// Makes the last segment durable; nothing may be appended any more.
  package func finish() throws(StrobeError) {
    let current = state.withLock { state in
      defer { state.current = nil }
      return state.current
    }
    try current?.writer.finish()
  }
}
