import Platform

/// The records of changes of one collection in a guest's disks.
///
/// - A bitmap is named after the disk's mark and the point that it counts from, and is recording from before that point's
///   instant.
/// - The instant of the next point stops it (`disable`) when, or after, that point's own starts recording: what
///   is written is always in one of them, or in both.
/// - So a stopped one whose successor records is complete with the successor's; a stopped one without is not.
///   `settle` makes one of two again, and leaves no stopped one behind.
/// - What concerns several disks is one transaction.
struct BitmapLedger {
  let monitor: QMPConnection
  /// What the names of this collection's begin with; no other's are touched.
  let prefix: String

  static let granularity = 64 << 10

  /// The name of a disk's bitmap that counts from a point.
  func name(_ disk: QEMUDisk, countingFrom point: String) -> String {
    "\(prefix)\(disk.bitmapMark)-\(point)"
  }

  /// - Parameter node: a node of a disk.
  func bitmaps(of node: String, _ graph: BlockGraph) -> [DirtyBitmap] {
    (graph.nodes[node]?.bitmaps ?? []).filter { $0.name.hasPrefix(prefix) }
  }

  /// Makes good what an unfinished pass left.
  ///
  /// - Parameter point: the point from which will be counted, or nil when nobody knows.
  func settle(_ disks: [QEMUDisk], parent point: String?, _ graph: BlockGraph) throws(StrobeError) {
    var mends: [JSONValue] = []
    var removals: [JSONValue] = []
    for disk in disks {
      let node = disk.node
      let parent = point.map { name(disk, countingFrom: $0) }
      let all = bitmaps(of: node, graph)
      if let busy = all.first(where: { $0.isBusy }) {
        throw StrobeError(
          .busy, "bitmap \(busy.name) of node \(node) is in use by another operation of QEMU",
          advice: "end the job or export that uses it, then run it again")
      }
      let sound = all.filter { !$0.isInconsistent }
      let recording = sound.filter(\.isRecording)
      let stopped = sound.filter { !$0.isRecording }
      var kept = parent == nil ? Set(recording.map(\.name)) : []
      // It goes with the commit; until then it tells what happened.
      if let parent, all.contains(where: { $0.isInconsistent && $0.name == parent }) {
        kept.insert(parent)
      }
      if let parent, let strange = strange(all, parent) { kept.insert(strange.name) }
      let wanted = parent ?? (stopped.count == 1 ? stopped[0].name : nil)
      if let wanted, recording.contains(where: { $0.name == wanted }) {
        kept.insert(wanted)
      } else if let wanted, stopped.contains(where: { $0.name == wanted }), recording.count == 1 {
        mends.append(Self.action("enable", node, wanted))
        mends.append(
          [
            "type": "block-dirty-bitmap-merge",
            "data": [
              "node": .string(node), "target": .string(wanted),
              "bitmaps": [.string(recording[0].name)],
            ],
          ])
        kept = [wanted]
      }
      removals += all.filter { !kept.contains($0.name) }
        .map { Self.action("remove", node, $0.name) }
    }
    try monitor.transaction(mends)
    try monitor.transaction(removals)
  }

  /// One that counts from the same point, but with another mark.
  private func strange(_ bitmaps: [DirtyBitmap], _ parent: String) -> DirtyBitmap? {
    guard let end = parent.lastIndex(of: "-").map({ parent[$0...] }) else { return nil }
    return bitmaps.first { $0.name != parent && $0.name.hasSuffix(end) }
  }

  /// Why nothing can be counted with a disk's bitmap; nil: it is complete.
  func doubt(of disk: QEMUDisk, parent point: String, _ graph: BlockGraph) -> String? {
    let name = name(disk, countingFrom: point)
    let all = bitmaps(of: disk.node, graph)
    guard let bitmap = all.first(where: { $0.name == name }) else {
      return strange(all, name) == nil
        ? "QEMU has no complete record of the changes since the parent"
        : "the record of changes in the image is that of another disk, or of an older Strobe, or what the image lies over "
          + "was changed or replaced"
    }
    if bitmap.isInconsistent {
      return "QEMU was killed while it recorded the changes since the parent"
    }
    // One that we didn't make may have been begun later than it says.
    guard bitmap.granularity == Self.granularity else {
      return "somebody else made QEMU's record of the changes since the parent: its blocks have "
        + "\(bitmap.granularity) bytes"
    }
    return bitmap.isRecording ? nil : "QEMU stopped recording the changes since the parent"
  }

  static func add(_ name: String, to node: String, persistent: Bool) -> JSONValue {
    [
      "type": "block-dirty-bitmap-add",
      "data": [
        "node": .string(node), "name": .string(name), "persistent": .bool(persistent),
        "granularity": .integer(granularity),
      ],
    ]
  }

  /// - Parameter verb: `enable`, `disable` or `remove`.
  static func action(_ verb: String, _ node: String, _ name: String) -> JSONValue {
    [
      "type": .string("block-dirty-bitmap-\(verb)"),
      "data": ["node": .string(node), "name": .string(name)],
    ]
  }
}
