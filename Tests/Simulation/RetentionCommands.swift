import Engine
import Platform
import SnapshotRepository
import TestSupport

// Protecting points, and pruning by a policy.

extension World {
  func protection(_ collection: CollectionModel, _ id: String) -> String {
    "collections/\(collection.name)/\(id).protected"
  }

  /// Protects a point, or no longer.
  func protect(_ collection: CollectionModel, _ point: PointModel) -> Operation {
    let isOn = point.isProtected ? Int.random(in: 0..<4, using: &random) == 0 : true
    let text = "\(isOn ? "protect" : "unprotect") \(collection.name) \(point.id.prefix(6))"
    return Operation(
      kind: "protect", text: text,
      body: { _ in
        let reference = collection.reference(point.id)
        if isOn {
          try self.engine().protect([reference], note: "kept")
        } else {
          try self.engine().unprotect([reference])
        }
        return ""
      },
      settle: { ending, tolerance in
        if case .failed(let failure) = ending { try self.judge(failure, tolerance, text) }
        guard let index = collection.points.firstIndex(where: { $0.id == point.id }) else { return }
        let object = self.protection(collection, point.id)
        let isThere = fileExists("\(self.repository)/\(object)")
        if case .returned = ending {
          try self.require(isThere == isOn || tolerance.isConcurrent, "\(text): not done")
          _ = self.rot.forget(object)
        }
        collection.points[index].isProtected = isThere
      })
  }

  /// Removes what a policy doesn't keep; what it says beforehand is what it does.
  func prune(_ collection: CollectionModel) -> Operation {
    let policy = anyPolicy()
    let text = "prune \(collection.name) to \(Self.text(policy))"
    let stay = Set(
      collection.points.suffix(max(1, policy.keepLast ?? 1)).map(\.id)
        + collection.points.filter(\.isProtected).map(\.id))
    return Operation(
      kind: "prune", text: text,
      body: { stop in
        let engine = try self.engine()
        let said = try engine.prune(collection.name, policy, dryRun: true, stop: stop)
        let done = try engine.prune(collection.name, policy, stop: stop)
        let removed = [said, done].map { $0.points.filter { $0.outcome == .removed } }
        let verified = said.points.filter { $0.decision.keptBy.contains(.verified) }
        return (removed + [verified]).map { points in
          points.map(\.decision.point.id).joined(separator: " ")
        }.joined(separator: "\u{1E}")
      },
      settle: { ending, tolerance in
        if case .failed(let failure) = ending { try self.judge(failure, tolerance, text) }
        let gone = collection.points.map(\.id).filter {
          !fileExists("\(self.repository)/\(self.document(collection, $0))")
        }
        if !tolerance.isConcurrent {
          try self.check(gone, collection, stay: stay, text)
          if case .returned(let result) = ending, tolerance.isStrict {
            let verified = try self.check(result, gone, collection, text)
            try self.check(gone, collection, onlyKeeps: policy, stay.union(verified), text)
          }
        }
        self.log.add("  \(gone.count) are gone")
        self.forget(gone, collection)
      })
  }

  /// What must not go, whatever happened.
  private func check(
    _ gone: [String], _ collection: CollectionModel, stay: Set<String>, _ what: String
  ) throws(Finding) {
    try requireUnprotected(gone, collection, what)
    // With unreadable documents the last ones are others.
    guard rot.isEmpty else { return }
    try require(stay.isDisjoint(with: gone), "\(what) removed \(stay.intersection(gone))")
  }

  /// What was said, done and is gone is one.
  ///
  /// - Returns: the newest point that was verified, if any, which stays too.
  private func check(
    _ result: String, _ gone: [String], _ collection: CollectionModel, _ what: String
  ) throws(Finding) -> Set<String> {
    let parts = result.split(separator: "\u{1E}", omittingEmptySubsequences: false)
    let ids = parts.map { Set($0.split(separator: " ").map(String.init)) }
    try require(
      ids[0] == Set(gone) && ids[1] == ids[0],
      "\(what) said \(parts[0]), did \(parts[1]), gone are \(gone)")
    try require(
      ids[2].count <= 1 && ids[2].isDisjoint(with: gone), "\(what): verified are \(parts[2])")
    // The repository may know of a newer one: of a point that needs nothing new, of one that was read in parts.
    if rot.isEmpty, let verified = collection.verified {
      let newer = collection.points.drop { $0.id != verified }.map(\.id)
      try require(
        !ids[2].isDisjoint(with: newer), "\(what): \(verified) was verified, it says \(parts[2])")
    }
    return ids[2]
  }

  /// A count of points keeps those points and no others, whatever the clocks say.
  private func check(
    _ gone: [String], _ collection: CollectionModel, onlyKeeps policy: RetentionPolicy,
    _ stay: Set<String>, _ what: String
  ) throws(Finding) {
    var count = RetentionPolicy()
    count.keepLast = policy.keepLast
    guard policy == count, rot.isEmpty else { return }
    let rest = Set(collection.points.map(\.id)).subtracting(gone).subtracting(stay)
    try require(rest.isEmpty, "\(what) left \(rest)")
  }

  private func anyPolicy() -> RetentionPolicy {
    var policy = RetentionPolicy()
    policy.keepLast = Int.random(in: 1...4, using: &random)
    guard Bool.random(using: &random) else { return policy }
    func some(_ limit: Int) -> Int? {
      Int.random(in: 0..<3, using: &random) == 0 ? Int.random(in: 1...limit, using: &random) : nil
    }
    policy.keepHourly = some(5)
    policy.keepDaily = some(5)
    policy.keepWeekly = some(3)
    policy.keepMonthly = some(3)
    policy.keepYearly = some(3)
    policy.keepWithinSeconds = some(1_000_000)
    if policy.keepDaily != nil && Bool.random(using: &random) { policy.keepLast = nil }
    return policy
  }

  private static func text(_ policy: RetentionPolicy) -> String {
    let rules = [
      ("last", policy.keepLast), ("hourly", policy.keepHourly), ("daily", policy.keepDaily),
      ("weekly", policy.keepWeekly), ("monthly", policy.keepMonthly),
      ("yearly", policy.keepYearly), ("within", policy.keepWithinSeconds),
    ]
    return rules.compactMap { name, count in count.map { "\(name) \($0)" } }
      .joined(separator: ", ")
  }

  /// Everything was read back.
  func noteVerified(_ collection: CollectionModel) {
    collection.verified = collection.points.last?.id
  }

  /// After an object rotted, or was put back.
  func noteRot(of object: String) {
    for collection in collections {
      collection.verified = nil
      for index in collection.points.indices {
        let path = protection(collection, collection.points[index].id)
        if path == object {
          collection.points[index].isProtected = fileExists("\(repository)/\(path)")
        }
      }
    }
  }
}

extension Command {
  static let protection = Command(name: "protect", weight: 3, when: \World.hasPoints) { world in
    guard let (collection, point) = world.anyPoint() else { return }
    try world.runUndisturbed(world.protect(collection, point))
  }

  static let retention = Command(name: "prune", weight: 4, when: \World.hasTwoPoints) { world in
    guard let (collection, _) = world.anyPoint() else { return }
    try world.runUndisturbed(world.prune(collection))
  }
}
