import Engine
import Platform

extension World {
  /// Removes one to three points of a machine.
  func delete(_ collection: CollectionModel) -> Operation {
    let count = Int.random(in: 1...3, using: &random)
    let ids = Array(collection.points.map(\.id).shuffled(using: &random).prefix(count))
    let isGuarded = collection.points.contains { ids.contains($0.id) && $0.isProtected }
    let text =
      "delete \(collection.name) " + ids.map { String($0.prefix(6)) }.joined(separator: " ")
    return Operation(
      kind: "delete", text: text,
      body: { _ in
        let removed = try self.engine().delete(ids.map { collection.reference($0) })
        return "\(removed.count)"
      },
      settle: { ending, tolerance in
        // A protection that can't be read protects.
        if !isGuarded && tolerance.isStrict || !self.isRefusal(ending) {
          try self.settleDeletion(of: ids, collection, ending, tolerance, text)
        } else {
          try self.settleDeletion(of: ids, collection, .killed, tolerance, text)
        }
        if isGuarded && tolerance.isStrict, case .returned = ending {
          throw Finding("\(text) removed what is protected")
        }
      })
  }

  private func isRefusal(_ ending: Ending) -> Bool {
    if case .failed(let failure) = ending { return failure.kind == "refused" }
    return false
  }

  private func settleDeletion(
    of ids: [String], _ collection: CollectionModel, _ ending: Ending, _ tolerance: Tolerance,
    _ what: String
  ) throws {
    // The document is the point: what is left of it tells what happened.
    let gone = ids.filter { !fileExists("\(repository)/\(document(collection, $0))") }
    if case .failed(let failure) = ending { try judge(failure, tolerance, what) }
    if case .returned = ending {
      try require(gone.count == ids.count, "\(what): only \(gone.count) of \(ids.count) are gone")
    }
    if !tolerance.isConcurrent { try requireUnprotected(gone, collection, what) }
    forget(gone, collection)
  }

  func requireUnprotected(
    _ gone: [String], _ collection: CollectionModel, _ what: String
  ) throws(Finding) {
    let wrong = collection.points.filter { $0.isProtected && gone.contains($0.id) }
    try require(wrong.isEmpty, "\(what) removed \(wrong.map(\.id)), which are protected")
  }

  /// Points that are no more, and rot that went with them.
  func forget(_ ids: [String], _ collection: CollectionModel) {
    collection.points.removeAll { ids.contains($0.id) }
    if let verified = collection.verified, ids.contains(verified) { collection.verified = nil }
    for id in ids {
      _ = rot.forget(document(collection, id))
      _ = rot.forget(protection(collection, id))
    }
  }
}
