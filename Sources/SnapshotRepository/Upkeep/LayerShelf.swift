package import Platform

/// Layers that are open: a few at a time, the longest unused goes first.
package final class LayerShelf {
  /// More than the longest chain has, and few descriptors.
  private static let limit = 100

  private let store: any ObjectStore
  private var open: [ObjectID: (reader: LayerReader, used: Int)] = [:]
  private var clock = 0

  package init(_ store: any ObjectStore) { self.store = store }

  package func layer(_ id: ObjectID) throws(StrobeError) -> LayerReader {
    clock += 1
    if let found = open[id] {
      open[id]?.used = clock
      return found.reader
    }
    if open.count >= Self.limit, let oldest = open.min(by: { $0.value.used < $1.value.used }) {
      open[oldest.key] = nil
    }
    let reader = try LayerReader(store, id)
    open[id] = (reader, clock)
    return reader
  }
}
