import Engine
import Platform
import SnapshotRepository

extension World {
  /// A snapshot of all disks of a machine.
  func snapshot(_ collection: CollectionModel) -> Operation {
    var options = options(for: collection)
    var text = "snapshot \(collection.name)"
    if Int.random(in: 0..<20, using: &random) == 0 {
      options.isFull = true
      text += " full"
    }
    options.forgottenDisks = remembered(collection).filter { name in
      !collection.disks.contains { $0.name == name }
    }
    if !options.forgottenDisks.isEmpty { text += " without \(options.forgottenDisks)" }
    let replaced = collection.replaced
    if !replaced.isEmpty && Bool.random(using: &random) {
      options.sameDisks = replaced
      text += " same \(replaced)"
    }
    let state = collection.current
    let isSurprise = options.sameDisks.isEmpty && !replaced.isEmpty
    let asked = options
    let known = Set(collection.points.map(\.id))
    let hadJournal = !namesInFolder("\(repository)/journal/\(collection.name)").isEmpty
    return Operation(
      kind: "snapshot", text: text,
      body: { stop in
        let report = try self.engine().snapshot(collection.name, asked, stop: stop)
        return SnapshotResult(report).text
      },
      settle: { ending, tolerance in
        if tolerance.isConcurrent { collection.isOrderUnknown = true }
        try self.settle(
          ending, tolerance, text, collection, state, before: known, warns: isSurprise)
        try self.settleJournals(ending, tolerance, text, collection, hadJournal: hadJournal)
      })
  }

  private func settle(
    _ ending: Ending, _ tolerance: Tolerance, _ what: String, _ collection: CollectionModel,
    _ state: MachineState, before: Set<String>, warns: Bool
  ) throws {
    let appeared = try newPoints(collection, besides: before)
    switch ending {
    case .returned(let text):
      let result = SnapshotResult(text: text)
      try require(appeared.contains(result.id), "\(what): point \(result.id) isn't listed")
      if tolerance.isStrict, rot.isEmpty {
        try check(result, collection, state.disks, what, warns: warns)
      }
      adopt(result.id, collection, state)
    case .failed(let failure):
      try judge(failure, tolerance, what)
      // A pass that failed may have committed all the same when only a flush failed after the commit.
      try require(
        appeared.isEmpty || !tolerance.errnos.isEmpty || tolerance.isConcurrent,
        "\(what) failed, yet there is a new point")
      if !tolerance.isConcurrent { try adoptAll(appeared, collection, state, what) }
    case .killed:
      if !tolerance.isConcurrent {
        try adoptAll(appeared, collection, state, what)
      } else {
        // Whatever else ran has been settled before.
        let rest = appeared.filter { !collection.contains($0) }
        try adoptAll(rest, collection, state, what)
      }
    }
  }

  /// What interrupted passes stored is taken over once, from those that there were.
  private func settleJournals(
    _ ending: Ending, _ tolerance: Tolerance, _ what: String, _ collection: CollectionModel,
    hadJournal: Bool
  ) throws {
    guard case .returned(let text) = ending else { return }
    let adopted = SnapshotResult(text: text).adopted
    if adopted > 0 { log.add("  took over \(adopted) bytes") }
    guard tolerance.isStrict else { return }
    try require(adopted == 0 || hadJournal, "\(what) took over \(adopted) bytes from nobody")
    // A scratched one may look like that of a newer program, and is left alone.
    guard rot.isEmpty, !haveJournalsRotted else { return }
    let left = filesBelow("\(repository)/journal/\(collection.name)")
    try require(left.isEmpty, "\(what) left journals: \(left)")
  }

  /// Ids of listed points that were not there before the operation.
  private func newPoints(
    _ collection: CollectionModel, besides known: Set<String>
  ) throws -> [String] {
    guard isThere(collection), !rot.contains("config.json") else { return [] }
    return try engine().list(collection.name)[0].points.map(\.id).filter {
      !known.contains($0) && !isDocumentRotten(collection, $0)
    }
  }

  private func adoptAll(
    _ ids: [String], _ collection: CollectionModel, _ state: MachineState, _ what: String
  ) throws {
    try require(ids.count <= 1, "\(what) made \(ids.count) points")
    for id in ids {
      log.add("  committed all the same: \(id)")
      adopt(id, collection, state)
    }
  }

  private func adopt(_ id: String, _ collection: CollectionModel, _ state: MachineState) {
    guard !collection.contains(id) else { return }
    collection.points.append(PointModel(id: id, state: state))
    // The record was written again if it had to be.
    let record = "collections/\(collection.name)/collection.json"
    if rot.contains(record) { _ = rot.forget(record) }
    // What was passed over must not come back: its place in the order is taken.
    rot.makeIrreversible { $0.hasPrefix("collections/\(collection.name)/") }
  }

  /// What an undisturbed pass reports is what the copies say.
  private func check(
    _ result: SnapshotResult, _ collection: CollectionModel, _ content: [String: [UInt8]],
    _ what: String, warns: Bool
  ) throws {
    try require(
      result.consistency == "CrashConsistent", "\(what): the point is \(result.consistency)")
    // A head table that was scratched is made again by the pass after the next.
    let expected = warns || haveTablesRotted && result.warnings.contains("the head table of")
    try require(result.warnings.isEmpty || expected, "\(what) warns: \(result.warnings)")
    let newest = collection.points.last
    try require(result.parent == (newest?.id ?? ""), "\(what): parent \(result.parent)")
    for (name, changed, isNew) in result.disks where !isNew {
      guard let before = newest?.disks[name], let after = content[name] else { continue }
      let expected = expectedChangeCount(before, after, chunkSize: shape.chunkSize)
      try require(
        changed == expected, "\(what), disk \(name): \(changed) chunks changed, not \(expected)")
    }
  }

  /// The disks that the repository will take, if it isn't told otherwise.
  private func remembered(_ collection: CollectionModel) -> [String] {
    let store = DirectoryStore(repository)
    if let record = try? CollectionRecord.read(store, collection.name) {
      return record.disks.map(\.name)
    }
    for point in collection.points.reversed() {
      if let read = try? RestorePoint.read(store, collection.name, point.id) {
        return read.disks.map(\.name)
      }
    }
    return []
  }

  func isThere(_ collection: CollectionModel) -> Bool {
    fileExists("\(repository)/collections/\(collection.name)")
  }
}

extension Command {
  /// The pass after one that never committed.
  static let takeOver = Command(name: "take over", weight: 12, when: \World.hasJournals) { world in
    let collection = world.interrupted.randomElement(using: &world.random)!
    try world.runUndisturbed(world.snapshot(collection))
  }
}

extension World {
  fileprivate var hasJournals: Bool { !interrupted.isEmpty }

  /// The machines whose last pass left a journal.
  fileprivate var interrupted: [CollectionModel] {
    collections.filter { !namesInFolder("\(repository)/journal/\($0.name)").isEmpty }
  }
}

/// What the model needs of a report, as text, because it may come from another process.
private struct SnapshotResult {
  let id: String
  let parent: String
  let consistency: String
  let warnings: String
  /// Bytes that were taken over from interrupted passes.
  let adopted: Int
  let disks: [(name: String, changed: Int, isNewChain: Bool)]

  init(_ report: SnapshotReport) {
    id = report.point.id
    parent = report.point.parent ?? ""
    consistency = report.point.consistency.rawValue
    warnings = report.warnings.joined(separator: "; ")
    adopted = report.adoptedBytes
    disks = report.point.disks.map { ($0.name, $0.changedChunks, $0.newChainReason != nil) }
  }

  init(text: String) {
    let fields = text.split(separator: "\u{1E}", omittingEmptySubsequences: false).map(String.init)
    id = fields[0]
    parent = fields[1]
    consistency = fields[2]
    warnings = fields[3]
    adopted = Int(fields[4])!
    disks = fields[5...].map { row in
      let parts = row.split(separator: "\u{1F}")
      return (String(parts[0]), Int(parts[1])!, parts[2] == "new")
    }
  }

  var text: String {
    let rows = disks.map { "\($0.name)\u{1F}\($0.changed)\u{1F}\($0.isNewChain ? "new" : "old")" }
    return ([id, parent, consistency, warnings, String(adopted)] + rows).joined(separator: "\u{1E}")
  }
}
