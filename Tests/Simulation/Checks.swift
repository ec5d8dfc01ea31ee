import Engine
import Glibc
import Platform
import SnapshotRepository

extension World {
  /// After every command: the repository lists exactly the points of the model, in their order.
  func checkListing() throws {
    guard !rot.contains("config.json") else { return }
    let listings = try engine().list()
    let names = listings.map(\.name)
    try require(names == known.map(\.name), "collections \(names)")
    for (listing, collection) in zip(listings, known) { try check(listing, collection) }
    for collection in collections where !isThere(collection) {
      try require(collection.points.isEmpty, "collection \(collection.name) vanished")
    }
  }

  private func check(_ listing: CollectionListing, _ collection: CollectionModel) throws {
    for error in listing.unreadable {
      try require(
        rot.explains(Failure(error)), "\(collection.name): unreadable without rot: \(error)")
    }
    let listed = listing.points.filter { !isDocumentRotten(collection, $0.id) }
    // Two passes at once may have been told of in another order than that of their commits.
    if collection.isOrderUnknown {
      let sequences = Dictionary(uniqueKeysWithValues: listed.map { ($0.id, $0.sequence) })
      func place(_ point: PointModel) -> Int { sequences[point.id] ?? point.sequence }
      collection.points.sort { place($0) < place($1) }
      collection.isOrderUnknown = false
    }
    let expected = collection.points.filter { !isDocumentRotten(collection, $0.id) }
    try require(
      listed.map(\.id) == expected.map(\.id),
      "\(collection.name) lists \(listed.map(\.id)), not \(expected.map(\.id))")
    for (before, after) in zip(listed, listed.dropFirst()) {
      try require(
        before.sequence < after.sequence,
        "\(collection.name): sequence \(after.sequence) after \(before.sequence)")
    }
    for summary in listed {
      guard let index = collection.points.firstIndex(where: { $0.id == summary.id }) else {
        continue
      }
      if collection.points[index].sequence == 0 {
        collection.points[index].sequence = summary.sequence
        collection.points[index].created = summary.created.nanoseconds
      }
      let point = collection.points[index]
      try require(
        point.sequence == summary.sequence && point.created == summary.created.nanoseconds
          && summary.diskCount == point.disks.count
          && summary.isProtected == point.isProtected
          && summary.size == point.disks.values.reduce(0) { $0 + $1.count },
        "\(collection.name) \(summary.id): the summary is another")
    }
  }

  /// Everything: each point restores byte for byte or fails by rot; verification names exactly the points
  /// that fail, and the objects that rotted; differences are those of the copies.
  func checkEverything() throws {
    try checkListing()
    guard !rot.contains("config.json") else { return }
    let report = DamageModel.list(
      try engine().verify(Self.oneWorker).damage.map(DamageModel.init).map(\.text)
        .joined(separator: "\u{1E}"))
    for damage in report {
      try require(
        rot.explains(damage.failure),
        "verify found what no rot explains: \(damage.failure.text)")
    }
    var broken = 0
    for collection in collections {
      for point in collection.points {
        guard let failure = try restoreFailure(collection, point) else { continue }
        broken += 1
        try require(
          rot.explains(failure), "\(collection.name) \(point.id): \(failure.kind): \(failure.text)")
        try require(
          isNamed(point, collection, report),
          "\(collection.name) \(point.id) fails (\(failure.text)), verify didn't name it")
      }
      for (old, new) in zip(collection.points, collection.points.dropFirst()) {
        try checkDifference(collection, old, new)
      }
    }
    log.add("  all \(pointCount) points are right, \(broken) of them damaged")
  }

  private func isNamed(
    _ point: PointModel, _ collection: CollectionModel, _ report: [DamageModel]
  ) -> Bool {
    if isDocumentRotten(collection, point.id),
      !fileExists("\(repository)/\(document(collection, point.id))")
    {
      return true
    }
    let name = "\(collection.name)@\(point.id.prefix(12))"
    return report.contains {
      $0.points.contains(name)
        || Rot.isNamed(document(collection, point.id), in: $0.failure.text)
    }
  }

  /// Restores a point and compares it.
  ///
  /// - Returns: why it can't be restored, or nil when it is right.
  func restoreFailure(_ collection: CollectionModel, _ point: PointModel) throws -> Failure? {
    let names = point.disks.keys.sorted()
    let targets = names.map { RestoreTarget(disk: $0, path: newTarget()) }
    defer { for target in targets { removeTarget(target.path) } }
    var options = RestoreOptions()
    options.workerCount = 1
    do {
      _ = try engine().restore(collection.reference(point.id), targets, options)
    } catch {
      for target in targets {
        guard let content = fileContents(target.path) else { continue }
        try require(content == point.disks[target.disk]!, "\(point.id): a partial restore")
      }
      return Failure(error)
    }
    for target in targets {
      let content = fileContents(target.path)
      try require(
        content == point.disks[target.disk]!,
        "\(collection.name) \(point.id), disk \(target.disk): restored wrongly")
      log.mix("\(point.id) \(target.disk) \(checksum64(content ?? []))")
    }
    return nil
  }

  /// Compares what is said of two points with their copies.
  func checkDifference(
    _ collection: CollectionModel, _ old: PointModel, _ new: PointModel
  ) throws {
    let difference: PointDifference
    do {
      difference = try engine().difference(
        from: collection.reference(old.id), to: collection.reference(new.id))
    } catch {
      let failure = Failure(error)
      // A collection whose record rotted is made anew with another key.
      if failure.kind == "refused", failure.text.contains("of different keys") { return }
      return try judge(failure, .strict, "diff \(old.id) \(new.id)")
    }
    let names = Set(old.disks.keys).union(new.disks.keys)
    try require(
      Set(difference.disks.map(\.name)) == names, "diff \(old.id) \(new.id): other disks")
    for disk in difference.disks {
      let after = new.disks[disk.name]
      let expected = after.map {
        expectedRanges(old.disks[disk.name] ?? [], $0, chunkSize: shape.chunkSize)
      }
      try require(
        disk.ranges == expected ?? [] && disk.newSize == after?.count
          && disk.oldSize == old.disks[disk.name]?.count,
        "diff \(old.id) \(new.id), disk \(disk.name): \(disk.ranges), not \(expected ?? [])")
    }
  }

  /// After a collection: exactly what points need is there, and nothing temporary.
  ///
  /// - Parameter keepsUnfinished: also the segments of interrupted passes that have a journal.
  func checkNothingIsLeft(keepsUnfinished: Bool = false) throws {
    guard rot.isEmpty else { return }
    let unfinished = keepsUnfinished ? journaledPasses : []
    let named = try namedObjects()
    let files = filesBelow(repository)
    let objects = files.filter { file in
      ["layers/", "segments/", "repairs/"].contains { file.hasPrefix($0) }
    }
    let surplus = Set(objects).subtracting(named).filter { object in
      !(object.hasPrefix("segments/")
        && unfinished.contains { object.dropFirst("segments/xx/".count).hasPrefix($0) })
    }
    let lost = named.subtracting(objects)
    try require(
      surplus.isEmpty && lost.isEmpty, "gc left \(surplus.sorted()), lost \(lost.sorted())")
    let journals = files.filter { $0.hasPrefix("journal/") }
    try require(keepsUnfinished || journals.isEmpty, "gc left \(journals)")
    let orphans = files.filter { $0.hasSuffix(".protected") }.filter { file in
      !fileExists("\(repository)/\(file.dropLast(".protected".count)).json")
    }
    try require(orphans.isEmpty, "gc left \(orphans)")
    let temporary = files.filter {
      !$0.hasPrefix("journal/") && ($0.contains("/.") || $0.hasPrefix("."))
    }
    try require(temporary.isEmpty, "gc left \(temporary)")
    let registrations = files.filter {
      $0.hasPrefix("locks/pass-") || $0.hasPrefix("locks/commit-")
    }
    try require(registrations.isEmpty, "gc left \(registrations)")
  }

  /// The passes whose segments the next snapshot will look into.
  private var journaledPasses: [String] {
    filesBelow(repository + "/journal").filter { $0.hasSuffix("/journal.json") }.map { file in
      String(file.split(separator: "/").dropLast().last!)
    }
  }

  /// The layers and segments that the model's points need.
  func namedObjects() throws -> Set<String> {
    let store = DirectoryStore(repository)
    var named: Set<String> = []
    for collection in collections {
      for point in collection.points {
        for disk in try engine().describe(collection.reference(point.id)).disks {
          for layer in disk.layers {
            let id = ObjectID(layer.id)!
            named.insert(id.layerName)
            for segment in try LayerReader(store, id).segments {
              named.insert(segment.segmentName)
              guard let repairs = try Repairs.read(store, segment) else { continue }
              named.insert(Repairs.objectName(segment))
              named.formUnion(repairs.targets.map(\.segmentName))
            }
          }
        }
      }
    }
    return named
  }

  /// At the end of a world nothing lies about beside the repository and the disks.
  func checkNothingLiesAbout() throws {
    let names = namesInFolder(folder).filter { $0 != "repository" && $0 != "disks" }
    try require(names.isEmpty, "left in the world: \(names)")
  }
}
