import BlockDevices
import ChangeDetection
import ChangeTracking
import Platform
import SnapshotRepository

/// How a disk is brought to one instant.
enum CutMethod {
  /// An image file: its blocks are shared with a copy, which is read afterwards.
  case clone(ImageClone)
  /// A tracked device: copied while it is in use; what changed meanwhile is read at the cut.
  case preCopy(TrackedDisk)
  /// A device without a tracker: all of it is read while it is frozen.
  case underFreeze
  /// Nothing has to be held still; that nothing was written is checked.
  case live
  /// A guest's disk, read where its hypervisor shows it as it was at the cut.
  case hypervisor
}

/// One disk while it is captured.
final class DiskPass {
  let plan: DiskPlan
  let capture: DiskCapture
  var method: CutMethod = .live
  /// Whether the caller says that nobody writes to a disk that can't be watched.
  var isIdleByWord = false
  /// Whether a tracker named the chunks that were read.
  var isHinted = false
  /// Why the whole disk was read although a tracker might have spared it.
  var scanReason: String?
  /// What is known to have been written since it was copied, to be read at the cut.
  var pending: MarkedBlocks?
  /// What is copied raw because it is written to again and again; nil: nothing yet.
  var scratch: LiveScratch?
  private(set) var hasRun = false

  init(_ plan: DiskPlan, _ capture: DiskCapture) {
    self.plan = plan
    self.capture = capture
  }

  var name: String { plan.name }
  var geometry: ChunkGeometry { plan.geometry }

  var tracked: TrackedDisk? {
    if case .preCopy(let disk) = method { return disk }
    return nil
  }

  /// Reads the disk, or the candidates of it, and keeps what changed.
  func run(
    candidates: ChunkBitmap? = nil, from source: DiskSource? = nil, _ settings: CaptureSettings
  ) throws(StrobeError) {
    let round = ScanRound(
      capture, source: source ?? plan.source, candidates: candidates, isRepeat: hasRun,
      stop: settings.stop)
    hasRun = true
    try round.run(workers: settings.workerCount)
  }
}

/// What all rounds of a pass have in common.
struct CaptureSettings {
  let workerCount: Int?
  let progress: Progress
  /// Set also when a freeze was lost: what goes on then is in vain.
  let stop: CancellationFlag
  let watch: WindowWatch
  /// Where raw copies are made, on the repository's file system.
  let scratchFolder: String
}

extension MarkedBlocks {
  /// The chunks that the marks touch.
  func chunks(_ geometry: ChunkGeometry) -> ChunkBitmap {
    let chunks = ChunkBitmap(chunkCount: geometry.chunkCount)
    forEachRange { range in
      let end = min(
        (range.upperBound + geometry.chunkSize - 1) / geometry.chunkSize, geometry.chunkCount)
      chunks.insert(min(range.lowerBound / geometry.chunkSize, end)..<end)
    }
    return chunks
  }
}

extension DiskCapture {
  /// Bytes of the chunks that `chunks` names.
  func byteCount(of chunks: ChunkBitmap) -> Int {
    var count = 0
    for word in 0..<chunks.wordCount where chunks[word: word] != 0 {
      count += byteCount(of: chunks[word: word], word: word)
    }
    return count
  }
}
