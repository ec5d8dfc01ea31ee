package import Platform

/// What the objects of a repository take on the medium, and how much of it points need.
package struct SpaceSurvey: Sendable {
  package let history: History
  /// Bytes of layers and segments that no point names.
  package let unnamedBytes: Int
  private let layerSizes: [ObjectID: Int]
  /// By collection: bytes that points need, and bytes that could be freed.
  private let segmentSizes: [String: (live: Int, dead: Int)]

  package init(_ repository: Repository, _ stop: CancellationFlag) throws(StrobeError) {
    let store = repository.store
    let objects =
      try GarbageCollection.objects(store, "layers")
      + GarbageCollection.objects(store, "segments")
    history = try History.read(store, stop)
    let named = try ReferencedObjects.names(store, history, stop)
    var unnamed = 0
    for name in objects where !named.contains(name) {
      // Gone since it was listed.
      unnamed += (try? store.storage(of: name).allocated) ?? 0
    }
    unnamedBytes = unnamed
    var sizes: [ObjectID: Int] = [:]
    for layer in history.layers { sizes[layer] = try store.storage(of: layer.layerName).allocated }
    layerSizes = sizes
    segmentSizes = try Self.segmentSizes(store, history, objects, stop)
  }

  private static func segmentSizes(
    _ store: any ObjectStore, _ history: History, _ objects: [String], _ stop: CancellationFlag
  ) throws(StrobeError) -> [String: (live: Int, dead: Int)] {
    var owner: [ObjectID: String] = [:]
    for collection in history.collections {
      for disk in collection.disks {
        for layer in disk.layers {
          for segment in try LayerReader(store, layer).segments where owner[segment] == nil {
            owner[segment] = collection.name
          }
        }
      }
    }
    var sizes: [String: (live: Int, dead: Int)] = [:]
    let reclaim = SegmentReclaim(
      store: store, options: GarbageCollection.Options(), candidates: Set(objects), inUse: [],
      stop: stop)
    try reclaim.survey(history) { segment, live in
      // A segment that only repairs name belongs to nobody in particular.
      let name = owner[segment.id] ?? ""
      let dead = max(0, segment.allocated - live)
      sizes[name, default: (0, 0)].live += segment.allocated - dead
      sizes[name, default: (0, 0)].dead += dead
    }
    return sizes
  }

  package func size(ofLayer layer: ObjectID) -> Int { layerSizes[layer] ?? 0 }

  package func segments(of collection: String) -> (live: Int, dead: Int) {
    segmentSizes[collection] ?? (0, 0)
  }
}
