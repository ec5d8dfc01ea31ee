import BlockDevices
import ChangeDetection
import Platform

/// What is read of all disks while everything stands still, to be stored afterwards: a window must not
/// wait for the repository.
///
/// The memory is there, and touched, before the window opens: in it nothing may wait for memory that the
/// kernel would have to free by writing to a frozen file system.
struct Remainder: ~Copyable {
  /// Bytes of content that are held at most.
  static let limit = 64 << 20

  private struct Piece {
    let disk: Int
    let position: Int
    let offset: Int
    let length: Int
  }

  private let memory: AlignedBuffer
  private var pieces: [Piece] = []
  private var used = 0

  /// - Parameter bytes: how much may come, at most ``limit``.
  init(bytes: Int) {
    let size = max(min(bytes, Self.limit), 4096)
    memory = AlignedBuffer(count: size)
    unsafe memory.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    pieces.reserveCapacity(size / ChunkGeometry.smallestChunk)
  }

  /// Forgets what was read: the cut is made again.
  mutating func removeAll() {
    pieces.removeAll(keepingCapacity: true)
    used = 0
  }

  /// Bytes of content that there is room for.
  var capacity: Int { memory.count - used }

  /// Reads the chunks that `chunks` names; there must be room.
  mutating func read(
    _ chunks: ChunkBitmap, disk: Int, _ geometry: ChunkGeometry,
    _ pipeline: inout ReadPipeline, requestSize: Int
  ) throws(StrobeError) {
    let first = pieces.count
    for word in 0..<chunks.wordCount where chunks[word: word] != 0 {
      forEachBit(of: chunks[word: word]) { bit in
        let position = word * 64 + bit
        let length = geometry.length(of: position)
        pieces.append(Piece(disk: disk, position: position, offset: used, length: length))
        used += length
      }
    }
    precondition(used <= memory.count)
    var started = first
    var next = first
    var inFlight: [Range<Int>] = []
    while next < pieces.count {
      while pipeline.hasRoom && started < pieces.count {
        let end = endOfRun(from: started, limit: requestSize)
        let length = pieces[started..<end].reduce(0) { $0 + $1.length }
        try pipeline.start(offset: geometry.offset(of: pieces[started].position), length: length)
        inFlight.append(started..<end)
        started = end
      }
      let run = inFlight.removeFirst()
      let bytes = try unsafe UnsafeRawBufferPointer(pipeline.next())
      unsafe UnsafeMutableRawBufferPointer(rebasing: memory.bytes[pieces[run.lowerBound].offset...])
        .copyMemory(from: bytes)
      pipeline.release()
      next = run.upperBound
    }
  }

  private func endOfRun(from first: Int, limit: Int) -> Int {
    var end = first + 1
    var length = pieces[first].length
    while end < pieces.count, pieces[end].position == pieces[end - 1].position + 1,
      length + pieces[end].length <= limit
    {
      length += pieces[end].length
      end += 1
    }
    return end
  }

  /// Stores what was read of a disk.
  func store(disk: Int, into capture: DiskCapture, stop: CancellationFlag) throws(StrobeError) {
    let memorySizes = ScanMemory(chunkSize: capture.geometry.chunkSize)
    var recorder = ChunkRecorder(capture, outputSize: memorySizes.outputSize, isRepeat: true)
    var group = -1
    var parent = ParentGroup.zeros
    for piece in pieces where piece.disk == disk {
      let own = piece.position / ChunkGeometry.chunksPerGroup
      if own != group {
        try stop.check()
        // The buffer's list of positions is that of one stripe.
        try recorder.flush()
        group = own
        parent = capture.parentGroup(own)
      }
      try unsafe recorder.take(
        UnsafeRawBufferPointer(
          rebasing: memory.bytes[piece.offset..<(piece.offset + piece.length)]),
        piece.position, parent)
      capture.count(read: piece.length)
    }
    try recorder.flush()
  }
}
