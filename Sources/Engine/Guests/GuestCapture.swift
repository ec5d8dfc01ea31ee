import BlockDevices
import ChangeDetection
import Glibc
import Platform
import SnapshotRepository
import VirtualMachines

// The order: clear up and prepare → hold the guest still → cut through all disks → let it go → open the
// exports → read what the hypervisor names, or everything → ask whether what was read is the cut → close.
//
// Invariants:
// - Nothing is committed unless the hypervisor says, after the last read, that what was read was the cut.
// - The record of changes since the parent stays until the point is committed (`GuestSession.committed`).
// - Whatever fails, the exports and all that was made for them are closed before the pass ends.

/// Captures all disks of a guest at one instant.
final class GuestCapture {
  private let disks: [DiskPass]
  private let guest: GuestSession
  private let context: PassContext
  private let settings: CaptureSettings
  private(set) var outcome = CaptureOutcome()

  init(
    _ disks: [DiskPass], _ guest: GuestSession, _ context: PassContext, _ settings: CaptureSettings
  ) {
    self.disks = disks
    self.guest = guest
    self.context = context
    self.settings = settings
    for disk in disks { disk.method = .hypervisor }
  }

  func run() throws(StrobeError) {
    outcome.warnings += guest.warnings
    let pass = try guest.begin(request)
    let window = try QuietWindow(
      disks, context, settings, guests: GuestHolds(context, guest, pass).holds)
    try window.hold { () throws(StrobeError) in
      outcome.instant = .now
      try pass.cut()
    }
    do throws(StrobeError) {
      try read(try pass.open())
      let failure = pass.failure()
      try settings.stop.check()
      if let failure { throw Self.broken(failure) }
    } catch {
      guard error.reason != .cancelled, let failure = pass.failure() else { throw error }
      throw Self.broken(failure)
    }
    try pass.close()
    outcome.warnings += pass.warnings + window.warnings
    note(window)
    let description = guest.machine.description
    outcome.machine = MachineRecord(
      hypervisor: description.hypervisor, name: description.name, uuid: description.uuid,
      way: pass.way, configuration: description.configuration,
      run: description.run)
  }

  private var request: GuestPassRequest {
    let counts = context.options.tracking != .none
    return GuestPassRequest(
      collection: context.collection.id, point: context.id.description,
      parent: counts ? context.parent?.id : nil, parentRun: context.parent?.machine?.run,
      disks: guest.disks.map(\.name),
      scratchFolder: context.collection.guest?.scratch ?? settings.scratchFolder,
      mayPause: context.collection.guest?.neverPauses != true, countsChanges: counts,
      stop: settings.stop)
  }

  private static func broken(_ failure: String) -> StrobeError {
    StrobeError(
      .busy, "the guest's disks can't be read as they were at the cut: \(failure)",
      advice: "run the command again")
  }

  private func note(_ window: QuietWindow) {
    (outcome.level, outcome.reasons) = ConsistencyAssessment(disks).level(window.held)
    outcome.reasons += window.weaknesses
    outcome.isWeaker = outcome.level.isWeaker(than: window.wanted)
    outcome.frozen = window.frozen
    outcome.hooks = window.hookRecords
    outcome.windowMilliseconds = window.milliseconds
  }

  private func read(_ exports: [GuestExport]) throws(StrobeError) {
    for (disk, export) in zip(disks, exports) {
      let served = try NBDDisk(
        export.uri, contexts: export.bitmap.map { [$0] } ?? [], stop: settings.stop)
      let source = try DiskSource(reading: served, inPlaceOf: disk.plan.source)
      let candidates = try candidates(disk, export, served, source)
      disk.isHinted = candidates != nil
      settings.progress.expectMore(
        candidates.map(disk.capture.byteCount(of:)) ?? disk.geometry.diskSize)
      try disk.run(candidates: candidates, from: source, settings)
    }
  }

  /// The chunks that may have changed; nil: all of them.
  private func candidates(
    _ disk: DiskPass, _ export: GuestExport, _ served: NBDDisk, _ source: DiskSource
  ) throws(StrobeError) -> ChunkBitmap? {
    guard let parent = disk.plan.parent else {
      disk.scanReason = disk.plan.newChainReason
      return nil
    }
    guard let bitmap = export.bitmap else {
      disk.scanReason = export.doubt ?? "its hypervisor has no record of changes since the parent"
      return nil
    }
    guard served.contexts.contains(bitmap) else {
      disk.scanReason = "its hypervisor doesn't show the record of changes \(bitmap)"
      return nil
    }
    let chunks = try dirty(served, bitmap, disk.geometry)
    // From the last chunk of the smaller of the two on: what lies beyond is not in the record of a disk that was resized, and
    // an image that lost less than a chunk at its end and got it back has nothing to show for it.
    let least = min(parent.chain.geometry.diskSize, disk.geometry.diskSize)
    let count = disk.geometry.chunkCount
    chunks.insert(min(max(0, least - 1) / disk.geometry.chunkSize, count)..<count)
    if let offset = HoleCheck(disk.capture, source, stop: settings.stop).contradiction(of: chunks) {
      disk.scanReason =
        "it reads as zeros at byte \(offset), where the parent has content and its hypervisor recorded no write: "
        + "it was shrunk and grown again, or changed past the hypervisor"
      outcome.warnings.append("disk \(disk.name): \(disk.scanReason ?? ""); the whole disk is read")
      return nil
    }
    let audit = TrackerAudit(disk: nil, source: source, capture: disk.capture)
    guard let position = try audit.findLie(besides: chunks, stop: settings.stop) else {
      return chunks
    }
    guest.discredited.insert(disk.name)
    disk.scanReason =
      "its hypervisor missed a write at byte \(disk.geometry.offset(of: position)): something writes to the "
      + "image past it"
    outcome.warnings.append("disk \(disk.name): \(disk.scanReason ?? ""); the whole disk is read")
    return nil
  }

  private func dirty(
    _ served: NBDDisk, _ bitmap: String, _ geometry: ChunkGeometry
  ) throws(StrobeError) -> ChunkBitmap {
    let chunks = ChunkBitmap(chunkCount: geometry.chunkCount)
    try served.forEachExtent(of: bitmap, stop: settings.stop) { range, flags in
      // Bit 0: dirty (QEMU, docs/interop/nbd.txt).
      guard flags & 1 != 0 else { return }
      let end = (range.upperBound + geometry.chunkSize - 1) / geometry.chunkSize
      chunks.insert((range.lowerBound / geometry.chunkSize)..<min(end, geometry.chunkCount))
    }
    return chunks
  }
}
