import Engine
import Platform

extension World {
  /// A garbage collection; what it says beforehand is what it does.
  func collectGarbage() -> Operation {
    let pointsBefore = pointCount
    let sweepsBefore = hasDeadPasses
    return Operation(
      kind: "gc", text: "gc",
      body: { stop in
        let engine = try self.engine()
        let expected = try engine.collectGarbage(dryRun: true, stop: stop)
        let done = try engine.collectGarbage(stop: stop)
        return "\(Self.text(expected))\u{1E}\(Self.text(done))"
      },
      settle: { ending, tolerance in
        try self.require(self.pointCount == pointsBefore || tolerance.isConcurrent, "gc: points")
        switch ending {
        case .failed(let failure): try self.judge(failure, tolerance, "gc")
        case .killed: break
        case .returned(let text):
          self.rot.makeIrreversible { $0.hasPrefix("layers/") || $0.hasPrefix("segments/") }
          guard tolerance.isStrict else { return }
          let parts = text.split(separator: "\u{1E}")
          // What passes that died left is swept before gc begins to count, and a dry run doesn't know what
          // its merges will let go: see BUGS.md.
          try self.require(
            parts[0] == parts[1] || sweepsBefore || !parts[0].contains(" 0 merged"),
            "gc said \(parts[0]), did \(parts[1])")
          self.log.add("  gc: \(parts[1])")
          try self.checkNothingIsLeft()
        }
      })
  }

  private var hasDeadPasses: Bool {
    namesInFolder(repository + "/locks").contains { $0.hasPrefix("pass-") }
  }

  private static func text(_ report: GarbageReport) -> String {
    "\(report.layers) layers, \(report.segments) segments, \(report.mergedLayers) merged,"
      + " \(report.rewrittenSegments) rewritten, \(report.bytes) bytes, \(report.partBytes) of parts,"
      + " \(report.inUse) in use"
  }

  /// Two workers would make the order of calls a matter of chance.
  static var oneWorker: VerifyOptions {
    var options = VerifyOptions()
    options.workerCount = 1
    return options
  }

  /// A verification of everything or of one machine.
  func verify(_ collection: CollectionModel?) -> Operation {
    let text = "verify \(collection?.name ?? "all")"
    return Operation(
      kind: "verify", text: text,
      body: { stop in
        try self.engine().verify(collection: collection?.name, Self.oneWorker, stop: stop).damage
          .map(DamageModel.init).map(\.text).joined(separator: "\u{1E}")
      },
      settle: { ending, tolerance in
        switch ending {
        case .failed(let failure): try self.judge(failure, tolerance, text)
        case .killed: break
        case .returned(let report):
          for damage in DamageModel.list(report) {
            try self.judge(damage.failure, tolerance, text + " found damage in \(damage.points)")
          }
        }
      })
  }

  /// A restore of all disks of a point to new files.
  func restore(_ collection: CollectionModel, _ point: PointModel) -> Operation {
    let names = point.disks.keys.sorted()
    let targets = names.map { RestoreTarget(disk: $0, path: newTarget()) }
    let overwrites = Int.random(in: 0..<4, using: &random) == 0
    let text =
      "restore \(collection.name) \(point.id.prefix(6))" + (overwrites ? " over files" : "")
    var options = RestoreOptions()
    options.workerCount = 1
    options.overwritesFiles = overwrites
    let asked = options
    if overwrites { for target in targets { overwriteFile(target.path, [1, 2, 3]) } }
    return Operation(
      kind: "restore", text: text,
      body: { stop in
        _ = try self.engine().restore(collection.reference(point.id), targets, asked, stop: stop)
        return "\(targets.count)"
      },
      settle: { ending, tolerance in
        try self.settleRestore(ending, tolerance, text, targets, point, overwrites: overwrites)
      })
  }

  private func settleRestore(
    _ ending: Ending, _ tolerance: Tolerance, _ what: String, _ targets: [RestoreTarget],
    _ point: PointModel, overwrites: Bool
  ) throws {
    var complete = 0
    for target in targets {
      // There is no such thing as a partial restore, whatever happened.
      if let content = fileContents(target.path), !overwrites || content != [1, 2, 3] {
        try require(content == point.disks[target.disk]!, "\(what), disk \(target.disk): wrong")
        complete += 1
      }
      unlinkFile(target.path)
    }
    switch ending {
    case .returned: try require(complete == targets.count, "\(what): \(complete) disks")
    case .failed(let failure): try judge(failure, tolerance, what)
    case .killed:
      // Between the link and the rename that replaces a file, a complete file has a hidden name: BUGS.md.
      if overwrites { removeHiddenTargets() }
    }
  }

  private func removeHiddenTargets() {
    for name in namesInFolder(folder) where name.hasPrefix(".strobe-") {
      unlinkFile(folder + "/" + name)
    }
  }
}

/// One damage of a report, as text, because it may come from another process.
struct DamageModel {
  /// Short references of points.
  let points: [String]
  let failure: Failure

  init(_ damage: Damage) {
    points = damage.points
    failure = Failure(damage.error)
  }

  private init(row: Substring) {
    let fields = row.split(separator: "\u{1F}", omittingEmptySubsequences: false).map(String.init)
    failure = Failure(kind: fields[0], text: fields[1])
    points = Array(fields[2...])
  }

  static func list(_ text: String) -> [DamageModel] {
    text.split(separator: "\u{1E}").map(DamageModel.init(row:))
  }

  var text: String { ([failure.kind, failure.text] + points).joined(separator: "\u{1F}") }
}
