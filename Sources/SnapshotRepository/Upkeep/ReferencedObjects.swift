import Platform

// What may never be removed. Whoever removes an object asks here first, and anything unclear ends it: a
// folder that is missing or no folder, a document or layer that can't be read.

/// The layers and segments that some restore point needs.
enum ReferencedObjects {
  /// Their names.
  static func names(
    _ store: any ObjectStore, _ stop: CancellationFlag
  ) throws(StrobeError) -> Set<String> {
    try names(store, History.read(store, stop), stop)
  }

  /// The names of what the points of `history` need, replacements of damaged records included.
  static func names(
    _ store: any ObjectStore, _ history: History, _ stop: CancellationFlag
  ) throws(StrobeError) -> Set<String> {
    let layers = history.layers
    var named = Set(layers.map(\.layerName))
    var segments: Set<ObjectID> = []
    for layer in layers {
      try stop.check()
      segments.formUnion(try LayerReader(store, layer).segments)
    }
    for segment in segments {
      named.insert(segment.segmentName)
      named.insert(Repairs.objectName(segment))
      for target in try Repairs.read(store, segment)?.targets ?? [] {
        named.insert(target.segmentName)
      }
    }
    return named
  }
}
