import Platform

// What may never be removed. Whoever removes an object asks here first, and anything unclear ends it: a
// folder that is missing or no folder, a document or layer that can't be read.

/// The layers and segments that some restore point needs.
enum ReferencedObjects {
  /// Their names.
  ///
  /// A listing may miss a point that appears while its parent vanishes: points are listed again until a
  /// listing brings nothing new.
  static func names(
    _ store: any ObjectStore, _ stop: CancellationFlag
  ) throws(StrobeError) -> Set<String> {
    do throws(StrobeError) {
      var reading = PointReading(store: store, stop: stop)
      while try reading.readNew() {}
      var named = Set(reading.layers.map(\.layerName))
      for layer in reading.layers {
        try stop.check()
        for segment in try LayerReader(store, layer).segments { named.insert(segment.segmentName) }
      }
      return named
    } catch {
      if error.reason == .cancelled { throw error }
      throw error.explained(
        "nothing was freed, because it can't be known what is still needed: \(error.message)",
        advice: "put that right, or delete the points that need it, and run gc again")
    }
  }
}

private struct PointReading {
  let store: any ObjectStore
  let stop: CancellationFlag
  var layers: Set<ObjectID> = []
  private var read: Set<String> = []
  private var vanished: Set<String> = []

  init(store: any ObjectStore, stop: CancellationFlag) {
    self.store = store
    self.stop = stop
  }

  /// Reads the points that were not read yet.
  ///
  /// - Returns: true when there were such, or one vanished.
  mutating func readNew() throws(StrobeError) -> Bool {
    var isNew = false
    for collection in try store.namesIfFolder("collections") {
      let files = try store.namesIfFolder("collections/\(collection)")
      let ids = files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }
      let points = ids.filter { PassID($0) != nil }
      for id in points where !read.contains("\(collection)/\(id)") {
        try stop.check()
        isNew = true
        try readPoint(collection, id)
      }
    }
    return isNew
  }

  private mutating func readPoint(_ collection: String, _ id: String) throws(StrobeError) {
    let name = "\(collection)/\(id)"
    do throws(StrobeError) {
      for disk in try RestorePoint.read(store, collection, id).disks {
        layers.formUnion(disk.layerIDs)
      }
      read.insert(name)
    } catch {
      // Deleted since the listing; one that is listed again leads nowhere.
      guard error.reason == .notFound, vanished.insert(name).inserted else { throw error }
    }
  }
}
