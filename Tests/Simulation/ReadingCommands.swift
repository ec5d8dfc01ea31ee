import Engine
import Glibc
import Platform
import SnapshotRepository
import TestSupport

// Commands that only look, and the one that rolls a disk back.

extension Command {
  /// A restore over the disk itself: the machine goes on from there.
  static let rollback = Command(name: "rollback", weight: 2, when: \World.hasPoints) {
    world in
    guard let (collection, point) = world.anyPoint(),
      let disk = collection.disks.first(where: { point.disks[$0.name] != nil })
    else { return }
    var options = RestoreOptions()
    options.workerCount = 1
    options.overwritesFiles = true
    options.overwritesSources = true
    // What a rollback that failed left is replaced or gone on with.
    options.resumes = Bool.random(using: &world.random)
    let what = "rollback \(collection.name) \(disk.name) to \(point.id.prefix(6))"
    do {
      _ = try world.engine().restore(
        collection.reference(point.id), [RestoreTarget(disk: disk.name, path: disk.path)], options)
    } catch let error as StrobeError {
      world.log.add("\(what): failed", detail: error.description)
      try world.require(fileContents(disk.path) == disk.content, "\(what) failed, and changed it")
      return try world.judge(Failure(error), .strict, what)
    }
    disk.becomes(point.disks[disk.name]!)
    try world.require(fileContents(disk.path) == disk.content, "\(what): wrong content")
    try world.require(!fileExists(partialPath(disk.path)), "\(what) left its partial file")
    world.log.add(what)
  }

  static let difference = Command(name: "diff", weight: 4, when: \World.hasTwoPoints) {
    world in
    guard let (collection, old) = world.anyPoint(),
      let new = collection.points.randomElement(using: &world.random)
    else { return }
    try world.checkDifference(collection, old, new)
    world.log.add("diff \(collection.name) \(old.id.prefix(6)) \(new.id.prefix(6))")
  }

  /// Every way to write a point leads to the one that it means.
  static let lookup = Command(name: "lookup", weight: 3, when: \World.hasPoints) {
    world in
    // With an unreadable document nobody knows how many points there are.
    guard world.rot.isEmpty, let (collection, point) = world.anyPoint() else { return }
    let points = collection.points
    let index = points.firstIndex { $0.id == point.id }!
    let newestBefore = points.last { $0.created <= point.created }!
    let answers = [
      ("latest", points.last!.id), ("-\(points.count - 1 - index)", point.id),
      (String(point.id.prefix(14)), point.id),
      (Timestamp(nanoseconds: point.created).description, newestBefore.id),
    ]
    for (text, id) in answers {
      let found = try world.engine().resolve(PointReference("\(collection.name)@\(text)"))
      try world.require(found == id, "\(collection.name)@\(text) means \(found), not \(id)")
    }
    world.log.add("lookup \(collection.name) \(point.id.prefix(6))")
  }
}
