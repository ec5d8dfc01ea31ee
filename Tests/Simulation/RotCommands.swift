import Engine
import Glibc
import Platform
import TestSupport

// Bit rot, and what an administrator does about it.

extension World {
  fileprivate var mayRot: Bool { rot.objects.count < 3 && hasPoints }
  fileprivate var canRecover: Bool { !rot.reversible.isEmpty }
  fileprivate var needsRepair: Bool { rot.contains("config.json") }
  var isDamaged: Bool { !rot.isEmpty && !needsRepair }

  /// Changes a file of the repository in some way that disks are known for.
  ///
  /// - Returns: what was done.
  @discardableResult
  func scratch(_ object: String) -> String { scratch(file: repository + "/" + object) }

  /// The same with any file.
  @discardableResult
  func scratch(file path: String) -> String {
    guard var bytes = fileContents(path), !bytes.isEmpty else { return "nothing" }
    let place = Int.random(in: 0..<bytes.count, using: &random)
    switch Int.random(in: 0..<6, using: &random) {
    case 0:
      let end = min(bytes.count, place / 512 * 512 + 4096)
      for index in (place / 512 * 512)..<end { bytes[index] = 0 }
      overwriteFile(path, bytes)
      return "zeroed from \(place / 512 * 512)"
    case 1:
      overwriteFile(path, Array(bytes[..<place]))
      return "cut to \(place)"
    case 2:
      unlinkFile(path)
      return "removed"
    case 3:
      bytes += random.bytes(Int.random(in: 1...600, using: &random))
      overwriteFile(path, bytes)
      return "lengthened"
    default:
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let index = Int.random(in: 0..<bytes.count, using: &random)
        bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      }
      overwriteFile(path, bytes)
      return "bits flipped"
    }
  }

  fileprivate func objects() -> [String] {
    let rooms = ["segments/", "layers/", "repairs/", "collections/", "config.json"]
    return filesBelow(repository).filter { file in rooms.contains { file.hasPrefix($0) } }
  }

  /// Removes a point that an administrator gives up.
  fileprivate func giveUp(_ collection: CollectionModel, _ point: PointModel) throws {
    let name = document(collection, point.id)
    if fileExists(repository + "/" + name) {
      try engine().unprotect([collection.reference(point.id)])
      try engine().delete([collection.reference(point.id)])
    }
    forget([point.id], collection)
  }
}

extension World {
  /// Rot of objects that no point needs any more explains nothing.
  fileprivate func forgetUnneeded() throws {
    let named: Set<String>
    do {
      named = try namedObjects()
    } catch let error as StrobeError {
      return try judge(Failure(error), .strict, "describe")
    }
    for object in rot.objects where !named.contains(object) {
      let isDocument = object.hasPrefix("collections/") || object == "config.json"
      if !isDocument { _ = rot.forget(object) }
    }
  }
}

extension Command {
  static let decay = Command(
    name: "rot", weight: 4, when: \World.mayRot
  ) { world in
    // Whole kinds of objects in turn: there are many more segments than documents.
    let all = world.objects()
    let rooms = Dictionary(grouping: all) { $0.split(separator: "/").first.map(String.init) ?? "" }
    let room = rooms.keys.sorted().randomElement(using: &world.random)!
    let object = rooms[room]!.randomElement(using: &world.random)!
    let path = world.repository + "/" + object
    let before = fileContents(path)!
    var what: String
    let other = rooms[room]!.randomElement(using: &world.random)!
    if other != object, Int.random(in: 0..<8, using: &world.random) == 0 {
      // A write that went to the wrong place.
      overwriteFile(path, fileContents(world.repository + "/" + other)!)
      what = "is what \(other) was"
    } else {
      what = world.scratch(object)
    }
    world.log.add("rot: \(object): \(what)")
    guard fileContents(path) != before else { return }
    world.rot.add(object, original: before)
    world.noteRot(of: object)
    if what == "removed", let id = Rot.pointID(of: object) {
      // Nothing is left that could say that there was a point.
      for collection in world.collections where collection.contains(id) {
        world.forget([id], collection)
      }
    }
  }

  /// The objects are put back: a mirror, a copy elsewhere.
  static let recovery = Command(
    name: "recover", weight: 8, when: \World.canRecover
  ) { world in
    for object in world.rot.reversible {
      guard let bytes = world.rot.forget(object) else { continue }
      overwriteFile(world.repository + "/" + object, bytes)
      world.noteRot(of: object)
      world.log.add("put back: \(object)")
    }
  }

  static let repair = Command(
    name: "repair", weight: 60, when: \World.needsRepair
  ) { world in
    do {
      _ = try SnapshotEngine.create(
        at: world.repository, chunkSize: world.shape.chunkSize, repairing: true)
      world.log.add("config.json is made anew")
    } catch let error as StrobeError {
      // Some damage changes nothing: white space that became other white space.
      try world.require(error.reason == .exists, "repair failed: \(error)")
      world.log.add("config.json needs no repair")
    }
    _ = world.rot.forget("config.json")
  }

  /// Points that are lost are deleted, so that everything else is whole again.
  static let amputation = Command(
    name: "amputate", weight: 5,
    when: \World.isDamaged
  ) { world in
    for collection in world.collections {
      for point in collection.points {
        guard let failure = try world.restoreFailure(collection, point) else { continue }
        try world.judge(failure, .strict, "amputate")
        world.log.add("given up: \(collection.name) \(point.id)")
        try world.giveUp(collection, point)
      }
    }
    try world.runUndisturbed(world.collectGarbage())
    try world.forgetUnneeded()
    try world.checkEverything()
  }
}
