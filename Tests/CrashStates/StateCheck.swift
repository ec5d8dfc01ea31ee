import ChangeDetection
import Engine
import FaultLayer
import Platform
import SnapshotRepository
import TestSupport

/// Something that a crash must not leave.
struct Broken: Error, CustomStringConvertible {
  let description: String
}

/// Opens what a crash left, and looks whether everything is there that has to be.
struct StateCheck {
  let play: Play
  let tree: WorkTree
  /// Room for a restored file.
  let folder: String

  /// - Parameter steps: how many of the record were taken before the crash.
  /// - Returns: points that can't be restored whole, and need not be yet.
  func check(after steps: Int) throws -> [String] {
    guard let engine = try open(after: steps) else { return [] }
    let repository = try Repository.open(at: tree.path)
    try checkProtections(engine, repository, after: steps)
    return try checkPoints(repository, try listed(engine), after: steps)
  }

  /// - Returns: nil when there is no repository yet, which was made then.
  private func open(after steps: Int) throws -> SnapshotEngine? {
    do throws(StrobeError) {
      return try SnapshotEngine(repository: tree.path)
    } catch {
      guard steps < play.isThereFrom, error.reason == .notFound else { throw error }
    }
    // What was cut off may be done again.
    tree.wasChanged()
    let isRepair = !play.present.isEmpty
    return try SnapshotEngine.create(
      at: tree.path, chunkSize: TestDisk.chunkSize, repairing: isRepair)
  }

  private func listed(_ engine: SnapshotEngine) throws -> [String] {
    var ids: [String] = []
    for listing in try engine.list() {
      guard listing.name == Play.collection else {
        throw Broken(description: "there is a collection \(listing.name)")
      }
      if let error = listing.unreadable.first {
        throw Broken(description: "a point can't be read: \(error)")
      }
      ids += listing.points.map(\.id)
    }
    return ids
  }

  private func checkPoints(
    _ repository: Repository, _ ids: [String], after steps: Int
  ) throws -> [String] {
    var damaged: [String] = []
    for id in ids where !play.points.contains(where: { $0.id == id }) {
      throw Broken(description: "there is a point \(id), which was never taken")
    }
    for point in play.points {
      let isThere = ids.contains(point.id)
      switch point.life.presence(after: steps) {
      case .must:
        if !isThere { throw Broken(description: "point \(point.id) is lost") }
      case .mustNot:
        if isThere { throw Broken(description: "point \(point.id) is there, and must not be") }
      case .may: break
      }
      if isThere, try !compare(repository, point.id, point.disks, after: steps) {
        damaged.append(point.id)
      }
    }
    return damaged
  }

  private func checkProtections(
    _ engine: SnapshotEngine, _ repository: Repository, after steps: Int
  ) throws {
    guard play.points.contains(where: { $0.protection != nil }) else { return }
    for summary in try engine.list(Play.collection)[0].points {
      let known = play.points.first { $0.id == summary.id }!.protection
      let found = try PointProtection.read(repository.store, Play.collection, summary.id)
      guard summary.isProtected == (found != nil) else {
        throw Broken(description: "point \(summary.id) is listed otherwise than it is protected")
      }
      switch known?.life.presence(after: steps) ?? .mustNot {
      case .must:
        if found == nil { throw Broken(description: "point \(summary.id) is no longer protected") }
      case .mustNot:
        if found != nil { throw Broken(description: "point \(summary.id) is protected") }
      case .may: break
      }
      guard let known, let found else { continue }
      let notes = steps < known.isNotedFrom ? known.notes : known.notes.suffix(1)
      if !notes.contains(found.note ?? "") {
        throw Broken(description: "point \(summary.id) has the note \(found.note ?? "none")")
      }
    }
  }

  /// Fails unless a point restores bit for bit: every chunk is read and checked as a restore does.
  ///
  /// - Parameter steps: before some number of them, what was damaged may still be.
  /// - Returns: false when some of it could not be read for that reason.
  @discardableResult
  private func compare(
    _ repository: Repository, _ id: String, _ disks: [String: [UInt8]], after steps: Int = .max
  ) throws -> Bool {
    var isWhole = true
    let point = try RestorePoint.read(repository.store, Play.collection, id)
    guard Set(point.disks.map(\.name)) == Set(disks.keys), let secret = point.secret else {
      throw Broken(description: "point \(id) has other disks")
    }
    for disk in point.disks {
      let geometry = ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize)
      let chain = try Chain(repository.store, layers: disk.layerIDs, geometry: geometry)
      let reader = ChunkReader(repository.store, secret, segments: chain.segments)
      let known = disks[disk.name]!
      let (content, isRead) = try content(chain, reader, known, after: steps)
      guard content == known else {
        throw Broken(description: "point \(id), disk \(disk.name): other bytes are restored")
      }
      if !isRead { isWhole = false }
    }
    return isWhole
  }

  /// - Parameter known: what is taken where a chunk is damaged that may be.
  private func content(
    _ chain: Chain, _ reader: ChunkReader, _ known: [UInt8], after steps: Int
  ) throws(StrobeError) -> (bytes: [UInt8], isWhole: Bool) {
    let geometry = chain.geometry
    var isWhole = true
    var bytes = [UInt8](repeating: 0, count: geometry.diskSize)
    let record = AlignedBuffer(count: geometry.chunkSize + 4096)
    try unsafe bytes.withMutableBytes { (bytes) throws(StrobeError) in
      for group in 0..<geometry.groupCount where chain.touches(group: group) {
        let map = try chain.resolved(group: group)
        let positions = geometry.positions(ofGroup: group)
        for position in positions where map.isStored(position - positions.lowerBound) {
          let location = map.location(position - positions.lowerBound)
          let stored = unsafe UnsafeMutableRawBufferPointer(
            rebasing: record.bytes[..<Int(location.length)])
          let start = geometry.offset(of: position)
          let content = unsafe UnsafeMutableRawBufferPointer(
            rebasing: bytes[start..<(start + geometry.length(of: position))])
          let fingerprint = map.fingerprint(position - positions.lowerBound)
          do throws(StrobeError) {
            try unsafe reader.segment(location.segment).read(at: Int(location.offset), into: stored)
            try unsafe reader.decode(
              UnsafeRawBufferPointer(stored), at: location, fingerprint: fingerprint, into: content)
          } catch {
            guard error.isDamage else { throw error }
            if unsafe reader.readReplacement(of: location, fingerprint: fingerprint, into: content)
            {
              continue
            }
            let key = Play.recordKey(reader.name(ofSegment: location.segment), location.offset)
            guard let healed = play.damage[key], steps < healed else { throw error }
            unsafe content.copyBytes(from: known[start..<(start + content.count)])
            isWhole = false
          }
        }
      }
    }
    return (bytes, isWhole)
  }

  // ---------------------------------------------------------------- going on

  /// Works on with what the crash left: a snapshot, a deletion, gc, and everything is there again.
  ///
  /// - Parameter damaged: points that were damaged before the crash and aren't healed.
  func goOn(damaged: [String], _ random: inout SeededGenerator) throws {
    tree.wasChanged()
    let engine = try SnapshotEngine(repository: tree.path)
    let repository = try Repository.open(at: tree.path)
    try expectWhole(engine, "after the crash", except: damaged)
    if let copy = play.copy, Bool.random(using: &random) { _ = try engine.heal(from: copy) }
    var expected: [String: [String: [UInt8]]] = [:]
    for id in try listed(engine) { expected[id] = play.points.first { $0.id == id }!.disks }
    if Int.random(in: 0..<4, using: &random) == 0 {
      _ = try engine.collectGarbage(dropsUnfinished: Bool.random(using: &random))
    }
    let report = try engine.snapshot(Play.collection, play.options)
    if !report.warnings.isEmpty {
      throw Broken(description: "the next snapshot warns: \(report.warnings)")
    }
    expected[report.point.id] = Dictionary(
      uniqueKeysWithValues: play.disks.map { ($0.name, $0.content) })
    if expected.count > 1, Bool.random(using: &random) {
      let victim = expected.keys.sorted().randomElement(using: &random)!
      try delete(victim, engine, repository)
      expected[victim] = nil
    }
    // Now the damage is known, if there was any.
    if let copy = play.copy { _ = try engine.heal(from: copy) }
    try Play.collect(
      tree.path, rewriting: Bool.random(using: &random), dropping: Bool.random(using: &random))
    guard Set(try listed(engine)) == Set(expected.keys) else {
      throw Broken(description: "after going on the points are \(try listed(engine))")
    }
    for (id, disks) in expected { try compare(repository, id, disks) }
    try expectWhole(engine, "after going on")
    try expectClean(repository, expected.keys.sorted())
    if let id = expected.keys.sorted().randomElement(using: &random) {
      try restore(engine, id, expected[id]!)
    }
  }

  /// Deletes a point; one that is protected only after it was unprotected.
  private func delete(_ id: String, _ engine: SnapshotEngine, _ repository: Repository) throws {
    let reference = try PointReference("\(Play.collection)@\(id)")
    if try PointProtection.read(repository.store, Play.collection, id) != nil {
      do {
        try engine.delete([reference])
        throw Broken(description: "point \(id) was deleted although it is protected")
      } catch let error as StrobeError where error.reason == .refused {}
      try engine.unprotect([reference])
    }
    try engine.delete([reference])
  }

  private func expectWhole(
    _ engine: SnapshotEngine, _ when: String, except damaged: [String] = []
  ) throws {
    let report = try engine.verify()
    let names = Set(damaged.map(Play.shortName))
    // A collection that was never heard of has no record yet.
    if let damage = report.damage.first(where: { !names.isSuperset(of: $0.points) }) {
      throw Broken(description: "verify \(when): \(damage.points): \(damage.error)")
    }
  }

  /// After gc nothing is left that no point needs.
  private func expectClean(_ repository: Repository, _ ids: [String]) throws {
    var needed: Set<String> = []
    for id in ids {
      for disk in try RestorePoint.read(repository.store, Play.collection, id).disks {
        for layer in disk.layerIDs {
          needed.insert(layer.layerName)
          let reader = try LayerReader(repository.store, layer)
          for segment in reader.segments {
            needed.insert(segment.segmentName)
            guard let repairs = try Repairs.read(repository.store, segment) else { continue }
            needed.insert(Repairs.objectName(segment))
            needed.formUnion(repairs.targets.map(\.segmentName))
          }
        }
      }
    }
    for file in try DiskImage(reading: tree.path).files {
      let room = file.path.prefix { $0 != "/" }
      let name = lastComponent(file.path)
      let isSurplus =
        switch room {
        case "layers", "segments", "repairs": !needed.contains(file.path)
        case "locks", "journal": true
        case "collections" where name.hasSuffix(".protected"):
          !ids.contains { name.hasPrefix($0) }
        default: name.hasPrefix(".tmp-")
        }
      if isSurplus { throw Broken(description: "gc left \(file.path)") }
    }
  }

  private func restore(_ engine: SnapshotEngine, _ id: String, _ disks: [String: [UInt8]]) throws {
    let names = disks.keys.sorted()
    let targets = names.map { RestoreTarget(disk: $0, path: folder + "/restored-" + $0) }
    var options = RestoreOptions()
    options.workerCount = 1
    _ = try engine.restore(
      try PointReference("\(Play.collection)@\(id)"), targets, options)
    for target in targets {
      let isSame = try readFile(target.path) == disks[target.disk]!
      try removeFile(target.path)
      if !isSame {
        throw Broken(description: "point \(id), disk \(target.disk): restored otherwise")
      }
    }
  }
}
