import Engine
import Platform

extension World {
  /// Two workers would make the order of calls a matter of chance.
  static var oneWorker: VerifyOptions {
    var options = VerifyOptions()
    options.workerCount = 1
    return options
  }

  /// A verification of everything or of one machine.
  func verify(_ collection: CollectionModel?) -> Operation {
    var options = Self.oneWorker
    if Int.random(in: 0..<3, using: &random) == 0 {
      options.sample = Double.random(in: 0...1, using: &random)
    }
    // Any other time would be a matter of chance.
    if Int.random(in: 0..<8, using: &random) == 0 { options.maxSeconds = 0 }
    let isWhole = options.sample == nil && options.maxSeconds == nil
    let text = "verify \(collection?.name ?? "all")\(isWhole ? "" : " in part")"
    let asked = options
    return Operation(
      kind: "verify", text: text,
      body: { stop in
        try self.engine().verify(collection: collection?.name, asked, stop: stop).damage
          .map(DamageModel.init).map(\.text).joined(separator: "\u{1E}")
      },
      settle: { ending, tolerance in
        switch ending {
        case .failed(let failure): try self.judge(failure, tolerance, text)
        case .killed: break
        case .returned(let report):
          if isWhole && tolerance.isStrict && self.rot.isEmpty && report.isEmpty {
            for one in self.known where collection == nil || one === collection {
              self.noteVerified(one)
            }
          }
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
        try self.settleRestore(
          ending, tolerance, text, targets, collection, point, overwrites: overwrites)
      })
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
