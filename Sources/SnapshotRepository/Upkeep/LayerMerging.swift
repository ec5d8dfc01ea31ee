import ChangeDetection
import Platform

// Makes one layer of several that no point separates. Only metadata is written; segments stay.
//
//   plan → write merged layers, durably → check them → for each point: replace its document
//
// Invariants:
// - M1 A merged layer says of every chunk what the layers together said: it is read back and compared
//   before any document names it.
// - M2 A document is replaced whole or not at all, and only where its chain has exactly the layers that
//   were merged, side by side. So a crash in between leaves points with old chains and points with new ones,
//   all of which restore the same.
// - M3 A document that somebody holds stays as it is: who reads it needs the old layers.
// - M4 Documents are replaced under the collection's writer lock: no new point is being built on a chain
//   that changes.
// - M5 The newest layer of the newest point stays: the head table is named after it.
// - M6 A document that this program would not write byte for byte as it is stays: it may say more than
//   this program knows.

/// Merges layers of all collections.
struct LayerMerging {
  /// A layer is merged into those after it only if it has at most so many times their bytes: else every
  /// run would write the largest layer again for a few changes.
  private static let largestRatio = 4
  /// Bytes up to which that doesn't matter.
  private static let smallLayer = 1 << 20

  let repository: Repository
  let options: GarbageCollection.Options
  let stop: CancellationFlag

  private var store: any ObjectStore { repository.store }

  func run(_ outcome: inout GarbageCollection.Outcome) throws(StrobeError) {
    let history = try History.read(store, stop)
    for collection in history.collections {
      var merges: [LayerMerge] = []
      for disk in collection.disks { merges += try plan(disk) }
      guard !merges.isEmpty else { continue }
      if options.isDryRun {
        try count(merges, &outcome)
      } else {
        try merge(merges, collection.name, &outcome)
      }
    }
  }

  /// The runs of layers that every chain has side by side, worth merging.
  private func plan(_ disk: DiskHistory) throws(StrobeError) -> [LayerMerge] {
    var merges: [LayerMerge] = []
    for run in disk.inseparableRuns {
      var part: [LayerReader] = []
      var bytes = 0
      func close() {
        if part.count > 1 { merges.append(LayerMerge(disk: disk.name, part.reversed())) }
        part = []
        bytes = 0
      }
      // Newest first, for older layers are the larger ones.
      for place in run.reversed() {
        let layer = try LayerReader(store, disk.layers[place])
        let isAlike = part.last.map { $0.header.geometry == layer.header.geometry } ?? true
        let isWorthIt = layer.size <= max(Self.smallLayer, bytes * Self.largestRatio)
        if !part.isEmpty && !(isAlike && isWorthIt) { close() }
        part.append(layer)
        bytes += layer.size
      }
      close()
    }
    return merges
  }

  private func count(
    _ merges: [LayerMerge], _ outcome: inout GarbageCollection.Outcome
  ) throws(StrobeError) {
    for merge in merges {
      let counter = CountingWriter()
      try merge.write(store, as: PassID().object(0), to: counter, stop)
      outcome.mergedBytes += counter.allocated
      outcome.merges += 1
      outcome.mergedLayers += merge.layers.count
      outcome.layers += merge.layers.count
      for layer in merge.layers {
        outcome.removedBytes += try store.storage(of: layer.header.id.layerName).allocated
      }
    }
  }

  private func merge(
    _ merges: [LayerMerge], _ collection: String, _ outcome: inout GarbageCollection.Outcome
  ) throws(StrobeError) {
    let pass = PassID()
    let registration = try PassRegistration.begin(
      store, pass, note: LockNote("gc", of: collection).description)
    defer { registration.release() }
    var merged: [(LayerMerge, ObjectID)] = []
    do throws(StrobeError) {
      for (index, merge) in merges.enumerated() {
        let id = pass.object(UInt32(index))
        try merge.write(store, as: id, to: store.create(id.layerName), stop)
        try merge.check(store, against: id, stop)
        merged.append((merge, id))
      }
      try PassRegistration.beginCommit(store, pass, registration)
    } catch {
      _ = try? PassRegistration.removeObjects(store, of: pass)
      throw error
    }
    for (merge, id) in merged {
      if try publish(merge, id, collection) {
        outcome.merges += 1
        outcome.mergedLayers += merge.layers.count
        outcome.mergedBytes += try store.storage(of: id.layerName).allocated
      } else {
        outcome.mergesInUse += 1
      }
    }
  }

  /// Puts a merged layer into the documents of all points.
  ///
  /// - Returns: false when some document was left as it is.
  private func publish(
    _ merge: LayerMerge, _ id: ObjectID, _ collection: String
  ) throws(StrobeError) -> Bool {
    guard
      let lock = try store.lock(
        "locks/writer-\(collection)", note: LockNote("gc", of: collection).description)
    else {
      return false
    }
    defer { lock.release() }
    var isWhole = true
    let old = merge.layers.map(\.header.id.description)
    for name in try store.namesIfFolder("collections/\(collection)") where name.hasSuffix(".json") {
      try stop.check()
      let point = String(name.dropLast(5))
      guard PassID(point) != nil else { continue }
      if try !replace(point, collection, merge.disk, old, by: id.description) { isWhole = false }
    }
    return isWhole
  }

  private func replace(
    _ id: String, _ collection: String, _ disk: String, _ old: [String], by new: String
  ) throws(StrobeError) -> Bool {
    let name = RestorePoint.objectName(collection, id)
    do throws(StrobeError) {
      var point = try RestorePoint.read(store, collection, id)
      guard let index = point.disks.firstIndex(where: { $0.name == disk }) else { return true }
      let chain = point.disks[index].layers
      guard let first = chain.firstIndex(where: old.contains) else { return true }
      let range = first..<min(first + old.count, chain.count)
      guard Array(chain[range]) == old,
        try store.get(name, limit: Document.sizeLimit)
          == Document.encode(point)
      else { return false }
      point.disks[index].layers.replaceSubrange(range, with: [new])
      return try store.replaceUnlessHeld(name, Document.encode(point))
    } catch {
      // Deleted since it was listed.
      if error.reason == .notFound { return true }
      throw error
    }
  }
}

extension DiskHistory {
  /// Layers that stand side by side in every chain that has one of them, two or more, oldest first.
  var inseparableRuns: [[Int]] {
    // For each layer what stands after and before it: nil unknown, -1 different things.
    var next = [Int?](repeating: nil, count: layers.count)
    var previous = next
    func note(_ list: inout [Int?], _ place: Int, _ other: Int) {
      list[place] = list[place] == nil || list[place] == other ? other : -1
    }
    for link in links {
      for (index, layer) in link.chain.enumerated() {
        note(&next, layer, index + 1 < link.chain.count ? link.chain[index + 1] : -1)
        note(&previous, layer, index > 0 ? link.chain[index - 1] : -1)
      }
    }
    let newest = links.last?.chain.last
    var runs: [[Int]] = []
    for first in layers.indices {
      // One that follows its predecessor everywhere is in that one's run, unless it is left out of it.
      if let before = previous[first], before >= 0, next[before] == first { continue }
      var run = [first]
      while let last = run.last, let after = next[last], after >= 0, previous[after] == last,
        after != newest
      {
        run.append(after)
      }
      if run.count > 1 { runs.append(run) }
    }
    return runs
  }
}
