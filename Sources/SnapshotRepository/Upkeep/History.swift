package import Platform

// What all restore points need, as reclaim, verification and usage see it.
//
// Invariants:
// - A listing may miss a point that appears while its parent vanishes: points are listed again until a
//   listing brings nothing new. So a point that was committed before the reading began and isn't deleted
//   is in it, and a point that appears later builds on one that is.
// - Anything that can't be read ends the reading: what isn't seen must not be taken for gone.

/// All restore points of a repository at one moment.
package struct History: Sendable {
  package let collections: [CollectionHistory]

  /// Reads all points.
  ///
  /// - Parameter only: a collection; nil: all.
  /// - Throws: when a folder or a point can't be read.
  package static func read(
    _ store: any ObjectStore, only: String? = nil, _ stop: CancellationFlag
  ) throws(StrobeError) -> History {
    var reading = HistoryReading(store: store, only: only, stop: stop)
    while try reading.readNew() {}
    return History(
      collections: reading.points.keys.sorted().map { name in
        CollectionHistory(name: name, reading.points[name] ?? [])
      })
  }

  package var layers: Set<ObjectID> {
    var all: Set<ObjectID> = []
    for collection in collections {
      for disk in collection.disks { all.formUnion(disk.layers) }
    }
    return all
  }
}

/// What is kept of a point: small, for there may be ten thousand.
package struct PointFacts: Sendable {
  struct Disk: Sendable {
    let name: String
    let size: Int
    let layers: [ObjectID]
  }

  let id: String
  let sequence: Int
  let created: Timestamp
  let chunkSize: Int
  let disks: [Disk]

  package init(_ point: RestorePoint) {
    var known = LayerNames()
    self.init(point, &known)
  }

  init(_ point: RestorePoint, _ known: inout LayerNames) {
    id = point.id
    sequence = point.sequence
    created = point.created
    chunkSize = point.chunkSize
    var disks: [Disk] = []
    for disk in point.disks {
      disks.append(
        Disk(name: disk.name, size: disk.size, layers: disk.layers.map { known.layer($0) }))
    }
    self.disks = disks
  }
}

/// One instance of every layer's identity: ten thousand points name the same few layers.
struct LayerNames {
  private var known: [String: ObjectID] = [:]

  mutating func layer(_ text: String) -> ObjectID {
    if let id = known[text] { return id }
    guard let id = ObjectID(text) else { preconditionFailure("a point that was read has layers") }
    known[text] = id
    return id
  }
}

private struct HistoryReading {
  let store: any ObjectStore
  let only: String?
  let stop: CancellationFlag
  var points: [String: [PointFacts]] = [:]
  private var read: Set<String> = []
  private var vanished: Set<String> = []
  private var names = LayerNames()

  init(store: any ObjectStore, only: String?, stop: CancellationFlag) {
    self.store = store
    self.only = only
    self.stop = stop
  }

  /// Reads the points that were not read yet.
  ///
  /// - Returns: true when there were such, or one vanished.
  mutating func readNew() throws(StrobeError) -> Bool {
    var isNew = false
    let collections = if let only { [only] } else { try store.namesIfFolder("collections") }
    for collection in collections {
      let files = try store.namesIfFolder("collections/\(collection)")
      let ids = files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }
      try checkProtections(files, ids, collection)
      for id in ids where PassID(id) != nil && !read.contains("\(collection)/\(id)") {
        try stop.check()
        isNew = true
        try readPoint(collection, id)
      }
    }
    return isNew
  }

  /// A point that is protected isn't deleted: when its document is gone, it was lost.
  private func checkProtections(
    _ files: [String], _ ids: [String], _ collection: String
  ) throws(StrobeError) {
    for name in files {
      guard let id = PointProtection.point(name), !ids.contains(id) else { continue }
      // Unless it was unprotected and deleted since the folder was listed.
      guard try store.exists(PointProtection.objectName(collection, id)),
        try !store.exists(RestorePoint.objectName(collection, id))
      else { continue }
      throw .damaged(
        RestorePoint.objectName(collection, id), expected: "the document of a protected point",
        found:
          "none; if it isn't needed, remove \(store.location)/collections/\(collection)/\(name)")
    }
  }

  private mutating func readPoint(_ collection: String, _ id: String) throws(StrobeError) {
    let name = "\(collection)/\(id)"
    do throws(StrobeError) {
      let point = try RestorePoint.read(store, collection, id)
      points[collection, default: []].append(PointFacts(point, &names))
      read.insert(name)
    } catch {
      // Deleted since the listing; one that is listed again leads nowhere.
      guard error.reason == .notFound, vanished.insert(name).inserted else { throw error }
    }
  }
}
