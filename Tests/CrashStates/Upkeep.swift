import ChangeDetection
import Engine
import Glibc
import Platform
import SnapshotRepository
import TestSupport

// What can happen to a repository besides snapshots, deletions and gc.

extension Play {
  /// A point as reports name it.
  static func shortName(_ id: String) -> String { "\(collection)@\(id.prefix(12))" }

  /// Tells stored chunks apart.
  static func recordKey(_ segment: String, _ offset: UInt64) -> String { "\(segment) \(offset)" }

  // ---------------------------------------------------------------- retention

  /// Removes all points but the newest, as a policy says, and protected ones.
  func prune(keeping count: Int) throws {
    var policy = RetentionPolicy()
    policy.keepLast = count
    let first = steps
    let report = try engine().prune(Self.collection, policy)
    let removed = report.points.filter { $0.outcome == .removed }.map(\.decision.point.id)
    for point in points where removed.contains(point.id) { point.life.vanishes = span(from: first) }
    guard removed.count >= 2 else { throw Broken(description: "prune removed \(removed)") }
  }

  /// Points that are there, oldest first.
  func somePoints(_ count: Int) -> [KnownPoint] {
    let chosen = Set(present.map(\.id).shuffled(using: &random).prefix(count))
    return present.filter { chosen.contains($0.id) }
  }

  func protect(_ chosen: [KnownPoint], note: String) throws {
    let first = steps
    try engine().protect(try references(chosen), note: note)
    for point in chosen {
      if point.protection == nil {
        point.protection = KnownPoint.Protection(notes: [])
        if isRecording { point.protection!.life.appears = span(from: first) }
      }
      point.protection!.notes.append(note)
      point.protection!.isNotedFrom = span(from: first).upperBound
    }
  }

  func unprotect(_ chosen: [KnownPoint]) throws {
    let first = steps
    let outcome = try engine().unprotect(try references(chosen))
    guard outcome.allSatisfy(\.wasProtected) else {
      throw Broken(description: "a protected point wasn't")
    }
    for point in chosen { point.protection!.life.vanishes = span(from: first) }
  }

  private func references(_ points: [KnownPoint]) throws -> [PointReference] {
    try points.map { try PointReference("\(Self.collection)@\($0.id)") }
  }

  // ---------------------------------------------------------------- damage

  /// Spoils stored chunks of the newest point that the disks still hold, after a copy was made; verify finds them.
  func damageSome() throws {
    try changeDisks()
    var records = try wholeRecordsOnDisks()
    while records.isEmpty {
      try snapshot()
      records = try wholeRecordsOnDisks()
    }
    let copy = WorkTree(folder + "/copy")
    try copy.become(try DiskImage(reading: repository))
    self.copy = copy.path
    let count = Int.random(in: 1...4, using: &random)
    for record in records.shuffled(using: &random).prefix(count) {
      damage[record.key] = .max
      // All of it, or the header only.
      let length = Bool.random(using: &random) ? record.range.count : SegmentFormat.recordHeaderSize
      let file = try FileDescriptor(opening: repository + "/" + record.segment, O_WRONLY)
      try unsafe random.bytes(length).withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: record.range.lowerBound)
      }
    }
    try verify()
    let found = try VerificationRecord.read(
      try Repository.open(at: repository).store, Self.collection
    ).damage
    guard found.count == min(count, records.count) else {
      throw Broken(description: "\(found.count) damaged records are known of \(count)")
    }
  }

  private struct Record {
    let segment: String
    let range: Range<Int>
    var key: String { Play.recordKey(segment, UInt64(range.lowerBound)) }
  }

  private func wholeRecordsOnDisks() throws -> [Record] {
    try recordsOnDisks().filter { damage[$0.key] == nil }
  }

  /// Where what the newest point needs is stored, as far as the disks still hold it at the same place.
  private func recordsOnDisks() throws -> [Record] {
    let store = try Repository.open(at: repository).store
    let newest = present.last!
    let point = try RestorePoint.read(store, Self.collection, newest.id)
    var records: [Record] = []
    for disk in point.disks {
      guard let source = disks.first(where: { $0.name == disk.name }) else { continue }
      let geometry = ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize)
      let now = ChunkGeometry(diskSize: source.content.count, chunkSize: point.chunkSize)
      let chain = try Chain(store, layers: disk.layerIDs, geometry: geometry)
      for group in 0..<geometry.groupCount where chain.touches(group: group) {
        let map = try chain.resolved(group: group)
        let positions = geometry.positions(ofGroup: group)
        for position in positions where map.isStored(position - positions.lowerBound) {
          let length = geometry.length(of: position)
          let start = geometry.offset(of: position)
          guard position < now.chunkCount, now.length(of: position) == length,
            source.content[start..<(start + length)]
              == newest.disks[disk.name]![start..<(start + length)]
          else { continue }
          let location = map.location(position - positions.lowerBound)
          let offset = Int(location.offset)
          records.append(
            Record(
              segment: chain.segments[Int(location.segment)].segmentName,
              range: offset..<(offset + Int(location.length))))
        }
      }
    }
    return records
  }

  /// Reads everything back.
  func verify() throws {
    var options = VerifyOptions()
    options.workerCount = 1
    _ = try engine().verify(options)
  }

  /// Forgets what verify found.
  func forgetDamage() throws {
    try removeFile(repository + "/" + VerificationRecord.objectName(Self.collection))
  }

  /// A snapshot of what the disks are by now, which heals what they still hold.
  func healingSnapshot() throws {
    let known = try damageCount()
    try snapshot(change: false)
    try expectHealed(report!.healedChunks, of: known)
  }

  func healFromCopy() throws {
    let known = try damageCount()
    try expectHealed(try engine().heal(from: copy!)[0].healedChunks, of: known)
  }

  private func damageCount() throws -> Int {
    try VerificationRecord.read(try Repository.open(at: repository).store, Self.collection)
      .damage.count
  }

  private func expectHealed(_ count: Int, of known: Int) throws {
    guard count == known, known > 0 else {
      throw Broken(description: "\(count) damaged chunks of \(known) were healed")
    }
    for (key, healed) in damage where healed == .max { damage[key] = isRecording ? steps : 0 }
  }

  // ---------------------------------------------------------------- what a kill leaves

  /// Snapshots that are killed, until one leaves a journal.
  func interrupt() throws {
    for _ in 0..<100 {
      for _ in 0..<3 { try changeDisks() }
      try killed { try snapshot(change: false) }
      if try !UnfinishedPasses.all(try Repository.open(at: repository).store).isEmpty { return }
    }
    throw Broken(description: "no snapshot left a journal")
  }

  /// Records a snapshot that takes something over from one that was interrupted.
  func recordResumption() throws {
    for _ in 0..<100 {
      try interrupt()
      try record { try snapshot(change: Int.random(in: 0..<3, using: &random) == 0) }
      if report!.adoptedBytes > 0 { return }
    }
    throw Broken(description: "no snapshot took anything over")
  }

  /// A repository whose first segments are partly needed: what a run of chunks held before was deleted.
  func fragmentedHistory() throws {
    options.segmentRollover = 1 << 20
    options.keyframeLayerLimit = 32
    try create()
    for _ in 0..<Int.random(in: 3...5, using: &random) {
      for disk in disks { try disk.fillStart(chunks: 8, &random) }
      try snapshot()
    }
    try delete(Array(present.dropLast(Int.random(in: 1...2, using: &random))))
  }

  /// Records a gc that writes segments again.
  func recordRewrite() throws {
    var count = 0
    try record { count = try collect(rewriting: true).rewrittenSegments }
    guard count > 0 else { throw Broken(description: "no segment was written again") }
  }
}
