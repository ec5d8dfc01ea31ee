import ChangeDetection
import Platform

// Frees parts of segments that no point needs. Invariants:
// - R1 A block is freed only if, of all points that a stable reading found, none needs a record that
//   touches it. Points that appear later build on points that were found, so they need nothing else of
//   these segments.
// - R2 Only segments are touched that were there before it was asked which passes are alive, and whose pass
//   then neither was nor had a journal. So what a running pass stores is never touched, whatever names it
//   meanwhile, and what another pass may be taking over isn't either.
// - R3 Repairs are read after that: those that name such a segment were all written by passes that had ended, so
//   none is missed. What a repair put in another record's place counts as that record.
// - R4 Where anything can't be read, nothing is freed.

/// Frees the dead parts of segments. All collections are looked at together, for a layer may name a segment of
/// another's.
struct SegmentReclaim {
  /// Bytes of bitmaps at a time: 2 TiB of segments. More segments are looked at in turns.
  private static let memoryLimit = 64 << 20

  let store: any ObjectStore
  let options: GarbageCollection.Options
  /// The names of all segments that there were before ``inUse`` was found out.
  let candidates: Set<String>
  /// Passes that were alive or had a journal before the points were read.
  let inUse: Set<PassID>
  let stop: CancellationFlag

  /// - Parameter history: all points.
  func run(
    _ history: History, _ outcome: inout GarbageCollection.Outcome
  ) throws(StrobeError) {
    do throws(StrobeError) { try reclaim(history, &outcome) } catch {
      guard error.isUnreadable || error.reason == .notFound || error.reason == .newerVersion else {
        throw error
      }
      let what = outcome.removedBytes == 0 ? "nothing was freed" : "nothing more was freed"
      throw error.explained(
        "\(what), because it can't be known what is still needed: \(error.message)",
        advice: "put that right, or delete the points that need it, and run gc again")
    }
  }

  private func reclaim(
    _ history: History, _ outcome: inout GarbageCollection.Outcome
  ) throws(StrobeError) {
    try forEachBatch(history) { (blocks) throws(StrobeError) in
      for (place, segment) in blocks.segments.enumerated() where blocks.deadBytes(place) > 0 {
        try stop.check()
        if options.isDryRun {
          outcome.freedParts += blocks.deadBytes(place)
        } else {
          try free(place, segment, blocks, &outcome)
        }
      }
    }
  }

  /// Tells of every segment how many bytes of it are needed.
  func survey(
    _ history: History, _ body: (LiveBlocks.Segment, _ live: Int) -> Void
  ) throws(StrobeError) {
    try forEachBatch(history) { (blocks) throws(StrobeError) in
      for (place, segment) in blocks.segments.enumerated() {
        body(segment, blocks.liveBytes(place))
      }
    }
  }

  private func forEachBatch(
    _ history: History, _ body: (LiveBlocks) throws(StrobeError) -> Void
  ) throws(StrobeError) {
    var batch: [LiveBlocks.Segment] = []
    var memory = 0
    for segment in try segments(of: history) {
      batch.append(segment)
      memory += LiveBlocks.memorySize(segment.size)
      if memory >= Self.memoryLimit {
        try body(mark(batch, history))
        batch = []
        memory = 0
      }
    }
    if !batch.isEmpty { try body(mark(batch, history)) }
  }

  /// Every segment that the layers name and that is there, in the order of their names.
  private func segments(of history: History) throws(StrobeError) -> [LiveBlocks.Segment] {
    var ids: Set<ObjectID> = []
    for layer in history.layers {
      try stop.check()
      ids.formUnion(try LayerReader(store, layer).segments)
    }
    for id in ids { ids.formUnion(try Repairs.read(store, id)?.targets ?? []) }
    var segments: [LiveBlocks.Segment] = []
    ids = ids.filter { candidates.contains($0.segmentName) && !inUse.contains($0.pass) }
    for id in ids.sorted(by: {
      $0.bytes.lexicographicallyPrecedes($1.bytes)
    }) {
      do throws(StrobeError) {
        let storage = try store.storage(of: id.segmentName)
        segments.append(.init(id: id, size: storage.size, allocated: storage.allocated))
      } catch {
        // Lost: verify tells; there is nothing to free.
        guard error.reason == .notFound else { throw error }
      }
    }
    return segments
  }

  private func mark(
    _ batch: [LiveBlocks.Segment], _ history: History
  ) throws(StrobeError) -> LiveBlocks {
    var blocks = LiveBlocks(batch)
    var repairs = RepairShelf(store)
    for disk in history.collections.flatMap(\.disks) {
      let shelf = LayerShelf(store)
      let records = LiveRecords(disk, shelf, stop)
      for layer in disk.layers.indices {
        let ids = try shelf.layer(disk.layers[layer]).segments
        let places = ids.map(blocks.place)
        let repairs = try ids.map { (id) throws(StrobeError) in try repairs.of(id) }
        guard places.contains(where: { $0 != nil }) || repairs.contains(where: { $0 != nil })
        else { continue }
        try records.forEachGroup(ofLayer: layer) { (group) throws(StrobeError) in
          try group.forEachRecord { (_, _, location) throws(StrobeError) in
            let segment = Int(location.segment)
            if let place = places[segment] {
              blocks.mark(place, offset: Int(location.offset), length: Int(location.length))
            }
            guard let found = repairs[segment]?.replacement(at: location.offset),
              let place = blocks.place(of: found.segment)
            else { return }
            blocks.mark(place, offset: found.offset, length: found.length)
          }
        }
      }
    }
    return blocks
  }

  private func free(
    _ place: Int, _ segment: LiveBlocks.Segment, _ blocks: LiveBlocks,
    _ outcome: inout GarbageCollection.Outcome
  ) throws(StrobeError) {
    let name = segment.id.segmentName
    var isFreed = false
    if options.mayPunch { isFreed = try store.free(blocks.ranges(place, live: false), of: name) }
    if !isFreed {
      guard Double(blocks.deadBytes(place)) > Double(segment.size) * options.maxUnused else {
        return
      }
      try store.rewrite(name, keeping: blocks.ranges(place, live: true))
      outcome.rewrittenSegments += 1
    }
    outcome.freedParts += max(0, segment.allocated - (try store.storage(of: name).allocated))
  }
}
