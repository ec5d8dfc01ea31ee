import Engine
import Platform
import TestSupport

extension Command {
  /// A restore of what can still be read of a damaged point: the rest is zeros, and it is said where.
  static let salvage = Command(name: "salvage", weight: 6, when: \World.canSalvage) { world in
    guard let (collection, _) = world.anyPoint() else { return }
    // Most rot is nothing to most points: on, until some are found that it hit.
    var broken = 0
    for point in collection.points.shuffled(using: &world.random) where broken < 2 {
      if try world.salvage(collection, point) { broken += 1 }
    }
  }
}

extension World {
  fileprivate var canSalvage: Bool { isDamaged && hasPoints }

  /// - Returns: whether the point is damaged.
  fileprivate func salvage(
    _ collection: CollectionModel, _ point: PointModel
  ) throws -> Bool {
    let what = "salvage \(collection.name) \(point.id.prefix(6))"
    let isWhole = try restoreFailure(collection, point) == nil
    let targets = point.disks.keys.sorted().map { RestoreTarget(disk: $0, path: newTarget()) }
    defer { for target in targets { removeTarget(target.path) } }
    var options = RestoreOptions()
    options.workerCount = 1
    options.allowsDamage = true
    options.resumes = Bool.random(using: &random)
    if options.resumes { litter(targets, point) }
    let report: RestoreReport
    do {
      report = try engine().restore(collection.reference(point.id), targets, options)
    } catch {
      log.add("\(what): failed", detail: error.description)
      try require(!isWhole, "\(what) failed, yet the point restores")
      try judge(Failure(error), .strict, what)
      return true
    }
    var lost = 0
    for (target, disk) in zip(targets, report.disks) {
      try check(target, disk, point.disks[target.disk]!, what)
      lost += disk.damagedRanges.reduce(0) { $0 + $1.count }
    }
    // What is lost in the repository may be in what an earlier restore left.
    try require(
      (lost == 0) == isWhole || lost == 0 && options.resumes,
      "\(what): \(lost) bytes damaged, the point restores: \(isWhole)")
    log.add("\(what): \(lost) bytes lost\(options.resumes ? ", over what was there" : "")")
    return !isWhole
  }

  /// What an earlier restore may have left: content of its own, or nothing that makes sense.
  private func litter(_ targets: [RestoreTarget], _ point: PointModel) {
    for target in targets where Bool.random(using: &random) {
      var bytes = point.disks[target.disk]!
      if Bool.random(using: &random) {
        bytes = random.bytes(Int.random(in: 1...bytes.count, using: &random))
      }
      overwriteFile(partialPath(target.path), bytes)
    }
  }

  /// Outside of what is said to be lost every byte is right, inside there are zeros.
  private func check(
    _ target: RestoreTarget, _ disk: RestoreReport.Disk, _ model: [UInt8], _ what: String
  ) throws(Finding) {
    var expected = model
    var end = 0
    for range in disk.damagedRanges {
      let isAligned =
        range.lowerBound % shape.chunkSize == 0
        && (range.upperBound % shape.chunkSize == 0 || range.upperBound == model.count)
      try require(
        !range.isEmpty && range.lowerBound >= end && range.upperBound <= model.count && isAligned,
        "\(what), \(target.disk): ranges \(disk.damagedRanges) of \(model.count)")
      end = range.upperBound
      expected.replaceSubrange(range, with: repeatElement(0, count: range.count))
    }
    try require(
      fileContents(target.path) == expected,
      "\(what), \(target.disk): wrong outside of \(disk.damagedRanges)")
  }
}
