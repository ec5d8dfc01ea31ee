import Platform

/// The records of changes of one collection in a guest's disks.
///
/// - A bitmap is named after the point that it counts from, and is recording from before that point's instant.
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

  /// - Parameter node: a node of a disk.
  func bitmaps(of node: String, _ graph: BlockGraph) -> [DirtyBitmap] {
    (graph.nodes[node]?.bitmaps ?? []).filter { $0.name.hasPrefix(prefix) }
  }

  /// Makes good what an unfinished pass left.
  ///
  /// - Parameter parent: the bitmap that will be wanted, or nil when nobody knows.
  func settle(_ nodes: [String], parent: String?, _ graph: BlockGraph) throws(StrobeError) {
    var mends: [JSONValue] = []
    var removals: [JSONValue] = []
    for node in nodes {
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

  /// Why nothing can be counted with a bitmap; nil: it is complete.
  func doubt(of name: String, on node: String, _ graph: BlockGraph) -> String? {
    guard let bitmap = bitmaps(of: node, graph).first(where: { $0.name == name }) else {
      return "QEMU has no complete record of the changes since the parent"
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
