import Engine
import Platform
import TestSupport

/// Things that go wrong without the model being told: the simulation has to find each of them, or it finds
/// nothing at all.
enum Sabotage: String, CaseIterable {
  /// A bit of the newest content flips.
  case flipSegment = "flip-segment"
  case removeSegment = "remove-segment"
  case removeLayer = "remove-layer"
  /// A restore point is gone.
  case removePoint = "remove-point"
  /// The disk holds something else than the model when a point is taken.
  case silentWrite = "silent-write"
  /// A point restores, but to what another one held.
  case swapModels = "swap-models"
  /// An object that nobody needs and that gc can't see.
  case litter
  /// Nothing protects a point any more.
  case dropProtection = "drop-protection"

  /// - Returns: false when there was nothing to break.
  func strike(_ world: World) throws -> Bool {
    guard world.rot.isEmpty else { return false }
    guard let victim = victim(in: world) else { return false }
    let (collection, point) = victim
    let files = filesBelow(world.repository)
    switch self {
    case .flipSegment:
      let segment = Self.object("segments/", of: point, files)!
      var bytes = fileContents(world.repository + "/" + segment)!
      bytes[120] ^= 0x10
      overwriteFile(world.repository + "/" + segment, bytes)
    case .removeSegment, .removeLayer:
      let room = self == .removeLayer ? "layers/" : "segments/"
      unlinkFile(world.repository + "/" + Self.object(room, of: point, files)!)
    case .removePoint:
      unlinkFile(world.repository + "/" + world.document(collection, point.id))
    case .silentWrite:
      guard let disk = collection.disks.first else { return false }
      disk.changeBehindTheBack(at: disk.content.count / 2)
      try world.runUndisturbed(world.snapshot(collection))
    case .swapModels:
      let index = collection.points.firstIndex { $0.id == point.id }!
      let other = collection.points[index - 1]
      collection.points[index] = PointModel(
        id: point.id, state: other.state, created: point.created, sequence: point.sequence,
        isProtected: point.isProtected)
    case .litter:
      overwriteFile(world.repository + "/locks/pass-left", [1])
    case .dropProtection:
      guard let object = files.first(where: { $0.hasSuffix(".protected") }) else { return false }
      unlinkFile(world.repository + "/" + object)
    }
    world.log.add("sabotage: \(rawValue)")
    return true
  }
  /// The newest point that stored something of its own, and differs from the one before.
  private func victim(in world: World) -> (CollectionModel, PointModel)? {
    let files = filesBelow(world.repository)
    for collection in world.collections {
      for (before, point) in zip(collection.points, collection.points.dropFirst()).reversed() {
        guard before.disks != point.disks, let segment = Self.object("segments/", of: point, files),
          fileContents(world.repository + "/" + segment)!.count > 130
        else { continue }
        return (collection, point)
      }
    }
    return nil
  }

  /// The first layer or segment that a point's own pass wrote.
  private static func object(_ room: String, of point: PointModel, _ files: [String]) -> String? {
    files.first { $0.hasPrefix(room) && $0.contains("/" + point.id) }
  }
}
