package import ChangeDetection
import Glibc
package import Platform

/// What a pass found out about the chunks that it stored, by position, until its layer is written.
///
/// A sparse file in the pass's journal: 32 bytes a chunk (fingerprint, location), so that neither memory nor
/// sorting grows with the disk. It is not made durable while the pass runs: what a power cut takes from it
/// is stored again.
package final class PassSpool: Sendable {
  package static let entrySize = Fingerprint.byteCount + ChunkLocation.byteCount

  private let file: FileDescriptor

  /// - Parameter path: a name that is free; on the repository's file system.
  package init(creating path: String) throws(StrobeError) {
    file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
  }

  /// Opens what an interrupted pass left.
  package init(reading path: String) throws(StrobeError) {
    file = try FileDescriptor(opening: path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    guard try file.facts().isRegularFile else {
      throw StrobeError(.notFound, "\(path) is no file")
    }
  }

  /// Keeps the entries of consecutive chunks.
  package func write(_ entries: UnsafeRawBufferPointer, position: Int) throws(StrobeError) {
    try unsafe file.write(entries, at: position * Self.entrySize)
  }

  /// The fingerprint of a chunk whose entry was written.
  package func fingerprint(at position: Int) throws(StrobeError) -> Fingerprint {
    var bytes = [UInt8](repeating: 0, count: Fingerprint.byteCount)
    return try unsafe bytes.withMutableBytes { (bytes) throws(StrobeError) in
      // A page that the file system lost reads as zeros, which no content's fingerprint is: the chunk is
      // stored again.
      _ = try unsafe file.read(at: position * Self.entrySize, into: bytes)
      return unsafe Fingerprint(at: UnsafeRawPointer(bytes.baseAddress!))
    }
  }

  /// The entry of a chunk as an interrupted pass left it: anything may be in it. Nil when there surely is none.
  package func entry(at position: Int) -> (fingerprint: Fingerprint, location: ChunkLocation)? {
    unsafe withUnsafeTemporaryAllocation(byteCount: Self.entrySize, alignment: 16) { bytes in
      guard
        let count = try? unsafe file.read(at: position * Self.entrySize, into: bytes),
        count == Self.entrySize, let start = UnsafeRawPointer(bytes.baseAddress)
      else { return nil }
      let fingerprint = unsafe Fingerprint(at: start)
      guard !fingerprint.isZero else { return nil }
      return unsafe (fingerprint, ChunkLocation(at: start + Fingerprint.byteCount))
    }
  }

  /// Keeps the entry of one chunk.
  package func write(
    _ fingerprint: Fingerprint, _ location: ChunkLocation, position: Int
  ) throws(StrobeError) {
    let bytes = AlignedBuffer(count: Self.entrySize, alignment: 16)
    unsafe fingerprint.store(at: bytes.address)
    unsafe location.store(at: bytes.address + Fingerprint.byteCount)
    try unsafe write(UnsafeRawBufferPointer(bytes.bytes), position: position)
  }

  /// Sets in `map` every chunk of `group` that `changed` and `stored` name; `renumber` turns a pass's
  /// segment number into that of the layer.
  package func read(
    group: Int, changed: ChunkBitmap, stored: ChunkBitmap, into map: GroupMap,
    scratch: UnsafeMutableRawBufferPointer, renumber: (UInt32) -> UInt32
  ) throws(StrobeError) {
    let firstWord = group * ChunkGeometry.wordsPerGroup
    let words = firstWord..<min(firstWord + ChunkGeometry.wordsPerGroup, changed.wordCount)
    guard words.contains(where: { changed[word: $0] != 0 }) else { return }
    let bytes = unsafe UnsafeMutableRawBufferPointer(
      rebasing: scratch[..<(ChunkGeometry.chunksPerGroup * Self.entrySize)])
    let start = group * ChunkGeometry.chunksPerGroup * Self.entrySize
    let count = try unsafe file.read(at: start, into: bytes)
    unsafe memset(bytes.baseAddress! + count, 0, bytes.count - count)
    for word in words {
      map.clear(word: word - firstWord, bits: changed[word: word] & ~stored[word: word])
      try forEachBit(of: stored[word: word]) { (bit) throws(StrobeError) in
        let index = (word - firstWord) * 64 + bit
        let entry = unsafe UnsafeRawPointer(bytes.baseAddress!) + index * Self.entrySize
        let location = unsafe ChunkLocation(at: entry + Fingerprint.byteCount)
        let fingerprint = unsafe Fingerprint(at: entry)
        // A page that the file system lost reads as zeros: no entry ever is.
        guard !fingerprint.isZero, location.length > SegmentFormat.recordHeaderSize else {
          throw .system(EIO, call: "read", object: "\(file.path), the pass's scratch file")
        }
        map.set(index, fingerprint, location.renumbered(renumber(location.segment)))
      }
    }
  }
}
