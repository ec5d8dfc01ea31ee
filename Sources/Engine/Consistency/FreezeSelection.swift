import BlockDevices
import Platform
import Quiescing
import SnapshotRepository

/// Which file systems a pass freezes, and which it must not.
enum FreezeSelection {
  static func select(
    _ freezing: SnapshotOptions.Freezing, disks: [FileFacts?]
  ) throws(StrobeError) -> [FileSystemOnDisk] {
    switch freezing {
    case .none, .guest: return []
    case .automatic:
      return try FileSystemsOnDisks.find(on: disks.map { $0.map(DiskReference.init) ?? .elsewhere })
    case .mountPoints(let paths):
      return try FileSystemsOnDisks.find(
        at: paths, on: disks.map { $0.map(DiskReference.init) ?? .elsewhere })
    }
  }

  /// Whoever writes to a frozen file system waits for the thaw. If that is us, it comes from the
  /// guardian, and the point is lost.
  static func refuseOwn(
    _ fileSystems: [FileSystemOnDisk], _ context: PassContext
  ) throws(StrobeError) {
    guard !fileSystems.isEmpty else { return }
    var places = [context.repository.store.location, "/proc/self/exe", "/run"]
    places += [context.options.guardianExecutable].compactMap { $0 }
    places += [context.options.hooks.preFreeze, context.options.hooks.postThaw].compactMap { $0 }
    guard let found = try SelfDependence(fileSystems).collision(of: places) else { return }
    let what = found.path == "/proc/self/exe" ? "the strobe program" : found.path
    throw StrobeError(
      .refused,
      "\(found.mountPoint) would be frozen, but \(what) is on it: the snapshot would wait for itself",
      advice:
        "move it to another disk, name what to freeze (--freeze MOUNTPOINT), or freeze nothing "
        + "(--freeze none)")
  }
}
