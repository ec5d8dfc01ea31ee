import BlockDevices
import Platform
import SnapshotRepository
import VirtualMachines

/// What a target has to be before anything is written to it.
struct TargetCheck {
  /// A disk that points of this repository are taken of.
  struct Source {
    let collection: String
    let disk: String
    let path: String
  }

  let collection: String
  let sources: [Source]
  let options: RestoreOptions
  let repositoryFolder: String
  let stop: CancellationFlag

  /// Opens the target of one disk, or says why it must not be written to.
  func open(_ disk: DiskRestorePoint, _ locator: DiskLocator) throws(StrobeError) -> DiskTarget {
    switch locator {
    case .local(let path): return try openLocal(disk, path)
    case .image(let path, let format): return try newImage(disk, path, format)
    case .network(let uri):
      try refuseSource(disk.name, NBDDisk.displayed(uri)) { path in
        guard case .network(let other) = DiskLocator(path) else { return false }
        return NBDDisk.key(other) == NBDDisk.key(uri)
      }
      let served = try NBDDisk(uri, stop: stop)
      return try large(DiskTarget(exported: served, path: NBDDisk.displayed(uri)), disk)
    case .guest:
      throw StrobeError(
        .usage, "a running guest's disk is no target",
        advice: "restore to a new image and attach it: docs/virtual-machines.md")
    }
  }

  private func large(
    _ target: DiskTarget, _ disk: DiskRestorePoint
  ) throws(StrobeError) -> DiskTarget {
    guard target.size >= disk.size else {
      throw StrobeError(
        .refused,
        "target \(target.path) has \(target.size) bytes, disk \(disk.name) needs \(disk.size)",
        advice: "choose a target of at least that size")
    }
    return target
  }

  private func openLocal(_ disk: DiskRestorePoint, _ path: String) throws(StrobeError) -> DiskTarget
  {
    guard let facts = try FileFacts(path: path) else {
      return try newFile(disk, path, replaces: false)
    }
    if facts.isRegularFile { return try existingFile(disk, path, facts) }
    guard facts.isBlockDevice else {
      throw StrobeError(
        .usage, "target \(path) is neither a block device nor a file",
        advice: facts.isDirectory ? "name a file in it, such as \(path)/\(disk.name).raw" : nil)
    }
    try refuseSource(disk.name, path, facts)
    try refuseUse(path, facts)
    return try large(DiskTarget(device: path), disk)
  }

  private func newFile(
    _ disk: DiskRestorePoint, _ path: String, replaces: Bool
  ) throws(StrobeError) -> DiskTarget {
    try checkPlace(path)
    return try DiskTarget(
      newFile: path, size: disk.size, replaces: replaces, resumes: options.resumes)
  }

  /// An image in a format, which QEMU's own code writes.
  private func newImage(
    _ disk: DiskRestorePoint, _ path: String, _ format: ImageFormat
  ) throws(StrobeError) -> DiskTarget {
    var (path, replaces) = (path, false)
    if let facts = try FileFacts(path: path) {
      guard facts.isRegularFile else {
        throw StrobeError(
          .usage, "target \(path) is no file: an image in format \(format.rawValue) is one")
      }
      try checkExisting(disk.name, path, facts)
      (path, replaces) = (resolvedPath(path) ?? path, true)
    }
    try checkPlace(path)
    let image = try PartialImage(for: path, resumes: options.resumes)
    let (partial, isNew) = (image.path, !image.wasThere)
    do throws(StrobeError) {
      return try serve(image, disk, path, format, replaces: replaces)
    } catch {
      // What holds nothing yet would only be in the way of --resume.
      if isNew { try? removeFile(partial) }
      throw error
    }
  }

  private func serve(
    _ image: consuming PartialImage, _ disk: DiskRestorePoint, _ path: String,
    _ format: ImageFormat, replaces: Bool
  ) throws(StrobeError) -> DiskTarget {
    if !image.wasThere {
      try ImageServer.create(image.path, format, size: disk.size, stop: stop)
    }
    let server = try ImageServer(image.path, format, isWritable: true)
    let served = try server.open(stop: stop)
    return try large(
      DiskTarget(newImage: image, served, server: server, path: path, replaces: replaces), disk)
  }

  /// Whether a file may be made at a path.
  private func checkPlace(_ path: String) throws(StrobeError) {
    let folder = parentDirectory(path)
    guard let place = try FileFacts(path: folder), place.isDirectory else {
      throw StrobeError(
        .notFound, "target \(path): there is no directory \(folder)", advice: "make it first")
    }
    if path.hasPrefix("/dev/") || resolvedPath(folder)?.hasPrefix("/dev") == true,
      try FileFacts(path: "/dev")?.device == place.device
    {
      throw StrobeError(
        .notFound, "target \(path): there is no such device", advice: "lsblk lists the devices")
    }
    if try isInRepository(folder) {
      throw StrobeError(
        .refused, "target \(path) is inside the repository", advice: "choose another place")
    }
  }

  /// Whether a folder is the repository or below it, by whatever path or bind mount.
  private func isInRepository(_ folder: String) throws(StrobeError) -> Bool {
    guard let home = try FileFacts(path: repositoryFolder), var place = resolvedPath(folder) else {
      return false
    }
    while true {
      if let facts = try FileFacts(path: place), facts.isSameFile(as: home) { return true }
      // A bind mount of a part of the repository leads up to elsewhere.
      for room in ["collections", "layers", "segments", "journal", "cache", "locks"] {
        if let inner = try FileFacts(path: "\(repositoryFolder)/\(room)"),
          let facts = try FileFacts(path: place), facts.isSameFile(as: inner)
        {
          return true
        }
      }
      if place == "/" { return false }
      place = parentDirectory(place)
    }
  }

  private func existingFile(
    _ disk: DiskRestorePoint, _ path: String, _ facts: FileFacts
  ) throws(StrobeError) -> DiskTarget {
    try checkExisting(disk.name, path, facts)
    return try newFile(disk, resolvedPath(path) ?? path, replaces: true)
  }

  /// Whether a file that is there may be replaced.
  private func checkExisting(
    _ disk: String, _ path: String, _ facts: FileFacts
  ) throws(StrobeError) {
    try refuseSource(disk, path, facts)
    try refuseUse(path, facts)
    guard options.overwritesFiles || options.overwritesSources else {
      throw StrobeError(
        .refused, "target \(path) exists already",
        advice: "choose another name, or replace it with --overwrite")
    }
    let loops = DeviceTree.loopDevices(backedBy: facts).compactMap(DeviceTree.name(of:))
    if let loop = loops.first {
      throw StrobeError(
        .busy, "target \(path) is attached to /dev/\(loop)",
        advice: "restore to /dev/\(loop), or detach it with: losetup -d /dev/\(loop)")
    }
  }

  /// A disk's own source needs the option; another disk of the same machine is surely a slip.
  private func refuseSource(
    _ disk: String, _ path: String, _ facts: FileFacts
  ) throws(StrobeError) {
    try refuseSource(disk, path) { (source) throws(StrobeError) in
      guard let path = DiskLocator(source).path, let other = try FileFacts(path: path) else {
        return false
      }
      return StorageFootprint(of: facts).overlaps(StorageFootprint(of: other))
    }
  }

  private func refuseSource(
    _ disk: String, _ path: String, _ isTarget: (_ source: String) throws(StrobeError) -> Bool
  ) throws(StrobeError) {
    var matches: [Source] = []
    for source in sources where try isTarget(source.path) { matches.append(source) }
    let isOwn = matches.contains { $0.collection == collection && $0.disk == disk }
    if !isOwn, let sibling = matches.first(where: { $0.collection == collection }) {
      throw StrobeError(
        .refused, "target \(path) is disk \(sibling.disk) of collection \(collection), not \(disk)",
        advice: "choose another target; if the disk is no longer \(sibling.disk), take a snapshot"
          + " with --forget-disk \(sibling.disk) first")
    }
    guard let match = matches.first, !options.overwritesSources else { return }
    throw StrobeError(
      .refused, "target \(path) is disk \(match.disk) of collection \(match.collection) itself",
      advice: "roll it back with --overwrite-source, or choose another target")
  }

  private func refuseUse(_ path: String, _ facts: FileFacts) throws(StrobeError) {
    let use = try DiskUse(of: facts, path: path)
    if let mount = use.mounts.first {
      throw StrobeError(
        .busy, "target \(path) is mounted at \(mount.mountPoint)",
        advice: "unmount it: umount \(mount.mountPoint)")
    }
    if let reason = use.otherWriter {
      throw StrobeError(
        .busy, "target \(path) is in use: \(reason)",
        advice: "stop what holds it (lsblk, fuser -v \(path))")
    }
  }
}
