import BlockDevices
public import Platform
import SnapshotRepository

extension SnapshotEngine {
  /// Writes disks of a restore point to devices or new files, bit for bit.
  ///
  /// Every chunk is checked before it is written; what is zeros is skipped, punched or zeroed; at the end
  /// everything is flushed. Files get their names only when all are complete. All targets are checked
  /// before the first is written to.
  ///
  /// A restore that is interrupted leaves the files beside their names, as `.<name>.strobe-partial`. With
  /// ``RestoreOptions/resumes`` the next one goes on with them, and with devices: whatever is there is compared
  /// chunk by chunk.
  ///
  /// - Parameters:
  ///   - targets: disks of the point; those that are not named are left out.
  ///   - progress: raised while the pass runs; bytes.
  /// - Throws: `refused` and `busy` for targets that must not be written to, `damaged` for a chunk that
  ///   is not what was stored, `system` when a target fills up or fails.
  public func restore(
    _ reference: PointReference, _ targets: [RestoreTarget],
    _ options: RestoreOptions = RestoreOptions(),
    progress: Progress = Progress(), stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> RestoreReport {
    let start = monotonicSeconds()
    let (point, lock) = try hold(reference)
    defer { lock.release() }
    let disks = try select(targets, of: point)
    let check = TargetCheck(
      collection: point.collection, sources: try sources(of: point), options: options,
      repositoryFolder: repository.localFolder, stop: stop)
    var passes: [RestorePass] = []
    do throws(StrobeError) {
      for (disk, target) in zip(disks, targets) {
        let open = try check.open(disk, DiskLocator(target.path))
        do throws(StrobeError) {
          passes.append(
            try RestorePass(
              repository, point, disk, target: open, options, progress: progress, stop: stop))
        } catch {
          open.abandon()
          throw error
        }
      }
      progress.expect(disks.reduce(0) { $0 + $1.size })
      for pass in passes { try pass.run(workerCount: options.workerCount) }
      // All or none get their names, so that a restore of several disks can be gone on with as a whole.
      for pass in passes { try pass.target.finish() }
    } catch {
      throw abandon(passes, error)
    }
    let reports = passes.map {
      RestoreReport.Disk(
        name: $0.disk.name, target: $0.target.path, size: $0.disk.size,
        writtenBytes: $0.writtenBytes, keptBytes: $0.keptBytes, damagedRanges: $0.damagedRanges,
        untouchedBytes: $0.target.size - $0.disk.size)
    }
    return RestoreReport(point: point, disks: reports, seconds: monotonicSeconds() - start)
  }

  /// Removes files without content.
  ///
  /// - Returns: the error, with what becomes of the others.
  private func abandon(_ passes: [RestorePass], _ error: StrobeError) -> StrobeError {
    var kept: [String] = []
    for pass in passes where pass.hasContent {
      if let partial = pass.target.partialPath, (try? FileFacts(path: partial)) ?? nil != nil {
        kept.append(partial)
      }
    }
    for pass in passes where !pass.hasContent { pass.target.abandon() }
    guard !kept.isEmpty else { return error }
    let text =
      "what was restored is kept as \(kept.joined(separator: ", ")): go on with --resume, or remove it"
    return error.explained(error.message, advice: error.advice.map { "\($0); \(text)" } ?? text)
  }

  private func select(
    _ targets: [RestoreTarget], of point: RestorePoint
  ) throws(StrobeError) -> [DiskRestorePoint] {
    let names = point.disks.map(\.name).joined(separator: ", ")
    guard !targets.isEmpty else {
      throw StrobeError(
        .usage, "no target is named",
        advice: "name one with --disk NAME=TARGET; the disks are: \(names)")
    }
    var disks: [DiskRestorePoint] = []
    for (index, target) in targets.enumerated() {
      guard let disk = point.disks.first(where: { $0.name == target.disk }) else {
        throw StrobeError(
          .notFound, "the point has no disk \(Names.quoted(target.disk))",
          advice: "its disks are: \(names)")
      }
      guard !disks.contains(where: { $0.name == disk.name }) else {
        throw StrobeError(
          .usage, "disk \(disk.name) is named twice", advice: "restore it to one target at a time")
      }
      for other in targets[..<index] where try Self.isSame(other.path, target.path) {
        throw StrobeError(
          .usage, "disks \(other.disk) and \(target.disk) have the same target, \(target.path)",
          advice: "give each its own")
      }
      disks.append(disk)
    }
    return disks
  }

  private static func isSame(_ left: String, _ right: String) throws(StrobeError) -> Bool {
    let (one, other) = (DiskLocator(left), DiskLocator(right))
    guard let left = one.path, let right = other.path else { return one == other }
    if left == right { return true }
    guard let first = try FileFacts(path: left), let second = try FileFacts(path: right) else {
      let folders = (resolvedPath(parentDirectory(left)), resolvedPath(parentDirectory(right)))
      return folders.0 != nil && folders.0 == folders.1
        && lastComponent(left) == lastComponent(right)
    }
    return StorageFootprint(of: first).overlaps(StorageFootprint(of: second))
  }

  /// Where the disks of all collections are: as each remembers, and as the point says of a disk that its
  /// collection forgot.
  private func sources(of point: RestorePoint) throws(StrobeError) -> [TargetCheck.Source] {
    var sources: [TargetCheck.Source] = []
    for name in try repository.collections() {
      // A record that can't be read keeps nobody from restoring.
      let disks = (try? CollectionRecord.read(repository.store, name))?.disks ?? []
      sources += disks.map { .init(collection: name, disk: $0.name, path: $0.source) }
    }
    let known = sources.filter { $0.collection == point.collection }.map(\.disk)
    return sources
      + point.disks.filter { !known.contains($0.name) }.map {
        .init(collection: point.collection, disk: $0.name, path: $0.source)
      }
  }

  /// Opens a point and holds it against deletion.
  func hold(_ reference: PointReference) throws(StrobeError) -> (
    point: RestorePoint, lock: any StoreLock
  ) {
    let id = try resolve(reference)
    return try repository.hold(reference.collection, id)
  }
}
