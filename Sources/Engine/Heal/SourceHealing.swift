import BlockDevices
import ChangeDetection
import Glibc
import Platform
import SnapshotRepository

/// Finds the content of damaged records on the disk that they were read from: what is at the same place
/// and has the same fingerprint is the same.
struct SourceHealing: ~Copyable {
  private var pipeline: ReadPipeline
  private let geometry: ChunkGeometry

  init(_ source: DiskSource, chunkSize: Int, stop: CancellationFlag) throws(StrobeError) {
    geometry = ChunkGeometry(diskSize: source.size, chunkSize: chunkSize)
    pipeline = try ReadPipeline(
      source: source, depth: 1, requestSize: max(4096, chunkSize), stop: stop)
  }

  /// Stores again what the disk still holds. A chunk that can't be read is passed over.
  mutating func heal(
    _ damage: [DamagedRecord], _ writer: inout RecordWriter, stop: CancellationFlag
  ) throws(StrobeError) {
    for record in damage {
      try stop.check()
      guard record.position < geometry.chunkCount,
        geometry.length(of: record.position) == record.contentLength
      else { continue }
      try pipeline.start(
        offset: geometry.offset(of: record.position), length: record.contentLength)
      do throws(StrobeError) {
        let bytes = try unsafe UnsafeRawBufferPointer(pipeline.next())
        _ = try unsafe writer.store(
          UnsafeRawBufferPointer(rebasing: bytes[..<record.contentLength]), for: record)
      } catch {
        guard error.errno == EIO, pipeline.hasEnded else { throw error }
      }
      pipeline.release()
    }
  }
}
