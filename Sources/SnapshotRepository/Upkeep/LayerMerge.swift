import ChangeDetection
import Platform
import Synchronization

/// Layers of one disk that become one.
struct LayerMerge {
  let disk: String
  /// Oldest first, of one geometry.
  let layers: [LayerReader]

  init(disk: String, _ layers: [LayerReader]) {
    self.disk = disk
    self.layers = layers
  }

  private func chain(_ store: any ObjectStore) throws(StrobeError) -> Chain {
    try Chain(
      store, layers: layers.map(\.header.id), geometry: layers[layers.count - 1].header.geometry)
  }

  /// Writes the merged layer.
  func write(
    _ store: any ObjectStore, as id: ObjectID, to writer: any ObjectWriter,
    _ stop: CancellationFlag
  ) throws(StrobeError) {
    let chain = try chain(store)
    let layer = LayerWriter(
      writer,
      LayerHeader(id: id, isKeyframe: layers[0].header.isKeyframe, geometry: chain.geometry))
    let resolved = GroupMap()
    let merged = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    var numbers = SegmentNumbers()
    for group in chain.touchedGroups {
      try stop.check()
      try unsafe chain.resolve(group: group, into: resolved, scratch: scratch.bytes)
      merged.reset()
      // Below a keyframe there is nothing that zeros would have to hide.
      if !layers[0].header.isKeyframe {
        for word in resolved.known.indices {
          merged.clear(word: word, bits: resolved.known[word] & ~resolved.stored[word])
        }
      }
      merged.add(storedOf: resolved, of: chain, &numbers)
      try layer.append(group: group, merged)
    }
    try layer.finish(segments: numbers.ids)
  }

  /// Compares the merged layer, as it was written, with the layers that it stands for.
  ///
  /// - Throws: `damaged` where they differ.
  func check(
    _ store: any ObjectStore, against id: ObjectID, _ stop: CancellationFlag
  ) throws(StrobeError) {
    let old = try chain(store)
    let new = try Chain(store, layers: [id], geometry: old.geometry)
    let (left, right) = (GroupMap(), GroupMap())
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for group in Set(old.touchedGroups + new.touchedGroups).sorted() {
      try stop.check()
      try unsafe old.resolve(group: group, into: left, scratch: scratch.bytes)
      try unsafe new.resolve(group: group, into: right, scratch: scratch.bytes)
      guard left.known == right.known || layers[0].header.isKeyframe, left.stored == right.stored,
        unsafe isEqual(left.fingerprints, right.fingerprints),
        isSame(left, old, right, new)
      else {
        throw .damaged(
          id.layerName, expected: "what \(layers.count) layers say of group \(group)",
          found: "something else")
      }
    }
  }

  private func isSame(_ left: GroupMap, _ old: Chain, _ right: GroupMap, _ new: Chain) -> Bool {
    for word in left.stored.indices where left.stored[word] != 0 {
      var isSame = true
      forEachBit(of: left.stored[word]) { bit in
        let (a, b) = (left.location(word * 64 + bit), right.location(word * 64 + bit))
        if a.offset != b.offset || a.length != b.length
          || old.segments[Int(a.segment)] != new.segments[Int(b.segment)]
        {
          isSame = false
        }
      }
      if !isSame { return false }
    }
    return true
  }
}

private func isEqual(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
  unsafe left.elementsEqual(right)
}

/// Counts the bytes of an object that isn't written.
final class CountingWriter: ObjectWriter {
  private let end = Atomic<Int>(0)

  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    end.max(offset + bytes.count, ordering: .relaxed)
  }

  func finish() throws(StrobeError) {}

  /// Bytes that it would take on a medium with blocks of 4 KiB.
  var allocated: Int { (end.load(ordering: .relaxed) + 4095) & ~4095 }
}
