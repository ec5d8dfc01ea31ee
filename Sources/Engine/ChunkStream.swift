import ChangeDetection
import Glibc
import Platform
import SnapshotRepository

/// A chunk to be read from the repository.
struct PlannedChunk {
  let position: Int
  let fingerprint: Fingerprint
  let location: ChunkLocation
  /// Bytes of the chunk; nil: as the geometry says.
  var length: Int?
}

/// Reads chunks in the order given, several records a request where they lie side by side, and checks
/// each.
struct ChunkStream: ~Copyable {
  private let reader: ChunkReader
  private let geometry: ChunkGeometry
  private let memory: AlignedBuffer

  /// Bytes of the buffer: holds at least one record.
  static func memorySize(chunkSize: Int) -> Int { max(2 << 20, 2 * chunkSize + 4096) }

  init(_ reader: ChunkReader, _ geometry: ChunkGeometry) {
    self.reader = reader
    self.geometry = geometry
    memory = AlignedBuffer(count: Self.memorySize(chunkSize: geometry.chunkSize))
  }

  /// Tells the kernel which records will be read soon.
  func prefetch(_ chunks: [PlannedChunk]) {
    var first = 0
    while first < chunks.count {
      let end = endOfRun(chunks, from: first, limit: .max)
      let from = Int(chunks[first].location.offset)
      let to = Int(chunks[end - 1].location.offset) + Int(chunks[end - 1].location.length)
      if let segment = try? reader.segment(chunks[first].location.segment) {
        segment.prefetch(from..<to)
      }
      first = end
    }
  }

  /// Decodes all `chunks`.
  ///
  /// - Parameters:
  ///   - sink: is asked where a chunk goes, and told that it is there.
  ///   - failed: decides what a chunk that can't be read means; throw to end.
  mutating func read(
    _ chunks: [PlannedChunk], into sink: inout some ChunkSink & ~Copyable
  ) throws(StrobeError) {
    var first = 0
    while first < chunks.count {
      let end = endOfRun(chunks, from: first, limit: memory.count)
      let start = Int(chunks[first].location.offset)
      let length =
        Int(chunks[end - 1].location.offset) + Int(chunks[end - 1].location.length) - start
      let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<length])
      do throws(StrobeError) {
        try unsafe reader.segment(chunks[first].location.segment).read(at: start, into: bytes)
      } catch {
        try readOneByOne(chunks[first..<end], error, into: &sink)
        first = end
        continue
      }
      for chunk in chunks[first..<end] {
        let place = Int(chunk.location.offset) - start
        let record = unsafe UnsafeRawBufferPointer(
          rebasing: bytes[place..<(place + Int(chunk.location.length))])
        try unsafe decode(chunk, record, into: &sink)
      }
      first = end
    }
  }

  private func decode(
    _ chunk: PlannedChunk, _ record: UnsafeRawBufferPointer,
    into sink: inout some ChunkSink & ~Copyable
  ) throws(StrobeError) {
    let content = try unsafe sink.place(
      for: chunk.position, length: chunk.length ?? geometry.length(of: chunk.position))
    do throws(StrobeError) {
      try unsafe reader.decode(
        record, at: chunk.location, fingerprint: chunk.fingerprint, into: content)
    } catch {
      guard error.isDamage,
        unsafe reader.readReplacement(
          of: chunk.location, fingerprint: chunk.fingerprint, into: content)
      else {
        try sink.failed(chunk.position, error)
        return
      }
    }
    try sink.completed(chunk.position)
  }

  /// A record that can't be read at all.
  private func readReplacement(
    _ chunk: PlannedChunk, _ error: StrobeError, into sink: inout some ChunkSink & ~Copyable
  ) throws(StrobeError) {
    let content = try unsafe sink.place(
      for: chunk.position, length: chunk.length ?? geometry.length(of: chunk.position))
    guard error.isDamage || error.reason == .notFound || error.errno == EIO,
      unsafe reader.readReplacement(
        of: chunk.location, fingerprint: chunk.fingerprint, into: content)
    else {
      try sink.failed(chunk.position, error)
      return
    }
    try sink.completed(chunk.position)
  }

  /// A request over several records failed: each record on its own tells which of them it was.
  private func readOneByOne(
    _ chunks: ArraySlice<PlannedChunk>, _ error: StrobeError,
    into sink: inout some ChunkSink & ~Copyable
  ) throws(StrobeError) {
    for chunk in chunks {
      let bytes = unsafe UnsafeMutableRawBufferPointer(
        rebasing: memory.bytes[..<Int(chunk.location.length)])
      do throws(StrobeError) {
        try unsafe reader.segment(chunk.location.segment).read(
          at: Int(chunk.location.offset), into: bytes)
      } catch {
        try readReplacement(chunk, error, into: &sink)
        continue
      }
      try unsafe decode(chunk, UnsafeRawBufferPointer(bytes), into: &sink)
    }
  }

  /// Records that follow one another in a segment are one request.
  private func endOfRun(_ chunks: [PlannedChunk], from first: Int, limit: Int) -> Int {
    var end = first + 1
    let start = chunks[first].location.offset
    while end < chunks.count {
      let last = chunks[end - 1].location
      let next = chunks[end].location
      guard next.segment == last.segment, next.offset == last.offset + UInt64(last.length),
        Int(next.offset - start) + Int(next.length) <= limit
      else { break }
      end += 1
    }
    return end
  }
}

/// Where decoded chunks go.
protocol ChunkSink: ~Copyable {
  /// The memory for the chunk at `position`.
  mutating func place(for position: Int, length: Int) throws(StrobeError)
    -> UnsafeMutableRawBufferPointer
  /// The chunk is in its place, checked.
  mutating func completed(_ position: Int) throws(StrobeError)
  /// The chunk can't be read; throw to end, return to go on.
  mutating func failed(_ position: Int, _ error: StrobeError) throws(StrobeError)
}

extension GroupMap {
  /// The chunks of some words of a group that hold content, in order.
  func plan(words: Range<Int>, firstPosition: Int) -> [PlannedChunk] {
    var chunks: [PlannedChunk] = []
    for word in words {
      forEachBit(of: stored[word]) { bit in
        let index = word * 64 + bit
        chunks.append(
          PlannedChunk(
            position: firstPosition + index, fingerprint: fingerprint(index),
            location: location(index)))
      }
    }
    return chunks
  }
}
