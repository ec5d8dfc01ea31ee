import ChangeDetection
package import Platform

/// When and how a chain is cut short: a keyframe is a layer with the whole resolved map, metadata only.
package enum Keyframe {
  /// Layers after the first from which on the next point writes a keyframe.
  package static let defaultLayerLimit = 32
  private static let smallestLayerCount = 4

  /// Whether the next point should write one: the layers since the last outgrow it, or are many.
  package static func isDue(after chain: Chain, layerLimit: Int = defaultLayerLimit) -> Bool {
    let since = chain.layers.dropFirst()
    if since.count >= layerLimit { return true }
    let size = since.reduce(0) { $0 + $1.size }
    return since.count >= smallestLayerCount && layerLimit == defaultLayerLimit
      && size > chain.layers[0].size
  }

  /// Writes the whole map of `chain` as one layer.
  package static func write(
    _ store: any ObjectStore, _ id: ObjectID, of chain: Chain,
    stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) {
    let writer = try LayerWriter(
      store, LayerHeader(id: id, isKeyframe: true, geometry: chain.geometry))
    let resolved = GroupMap()
    let whole = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    var numbers = SegmentNumbers()
    for group in chain.touchedGroups {
      try stop.check()
      try unsafe chain.resolve(group: group, into: resolved, scratch: scratch.bytes)
      whole.reset()
      whole.add(storedOf: resolved, of: chain, &numbers)
      try writer.append(group: group, whole)
    }
    try writer.finish(segments: numbers.ids)
  }
}
