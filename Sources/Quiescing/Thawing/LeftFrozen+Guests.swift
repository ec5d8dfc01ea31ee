import Platform

extension LeftFrozen {
  /// Thaws or resumes the guest of a socket that an outage left.
  ///
  /// - Returns: nil when the path is no guest's.
  func thawGuest(_ path: String, force: Bool) throws(StrobeError) -> Repair? {
    let record = FreezeRecord.path(ofGuest: path, in: folder)
    guard try FileFacts(path: record) != nil else {
      guard try FileFacts(path: path)?.isSocket == true else { return nil }
      throw StrobeError(
        .refused, "\(path): no snapshot left this guest frozen",
        advice:
          "if it is frozen all the same, thaw it with guest-fsfreeze-thaw, or resume it with cont")
    }
    // Its agent and its monitor serve one connection, and whoever holds the record has that.
    if let repair = try Self.end(staleGuest: record) { return repair }
    throw StrobeError(
      .busy, "\(path): a snapshot that runs now holds this guest (\(FreezeRecord.holder(record)))",
      advice: force
        ? "--force is not for guests: end the snapshot"
        : "it thaws by itself, at its deadline at the latest")
  }

  static func isOfProcessors(_ record: String) -> Bool {
    if case .processors = FreezeRecordContent(reading: record)?.kind { true } else { false }
  }

  /// - Parameter record: the path of a guest's record.
  /// - Returns: nil when there is none, or a pass that runs holds it.
  static func end(staleGuest record: String) throws(StrobeError) -> Repair? {
    guard let file = try locked(record) else { return nil }
    // Without a whole record nothing was frozen (R3).
    guard let content = FreezeRecordContent(reading: record) else {
      FreezeRecord.remove(record, lockedBy: file.number)
      return Repair(kind: .agent, mountPoint: record, outcome: .gone)
    }
    var outcome = Repair.Outcome.gone
    if content.isOfThisBoot, let wasFrozen = try content.kind.endLeft() {
      outcome = wasFrozen ? .thawed : .notFrozen
    }
    FreezeRecord.remove(record, lockedBy: file.number)
    let isAgent = if case .processors = content.kind { false } else { true }
    return Repair(
      kind: isAgent ? .agent : .processors, mountPoint: content.place, outcome: outcome)
  }
}
