import ChangeDetection
import Platform

@testable import SnapshotRepository

// Layers, one by one and as a chain.

extension FuzzedParser {
  /// A layer that is accepted, encoded again, gives the same bytes.
  static let layer = FuzzedParser("layer") { input in
    guard let id = layerID(input.bytes) else { return }
    let bytes = input.repairsChecksums ? repairedLayer(input.bytes) : input.bytes
    let store = MemoryStore([id.layerName: bytes])
    guard let reader = try? LayerReader(store, id),
      let chain = try? Chain(store, layers: [id], geometry: reader.header.geometry)
    else { return }
    let copies = MemoryStore()
    guard let writer = try? LayerWriter(copies, reader.header) else { return }
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    for rank in 0..<reader.storedGroupCount {
      let group = reader.group(rank: rank)
      guard (try? unsafe chain.resolve(group: group, into: map, scratch: scratch.bytes)) != nil
      else { return }
      guard (try? writer.append(group: group, map)) != nil else { return }
    }
    guard (try? writer.finish(segments: reader.segments)) != nil else { return }
    var copy = copies[id.layerName] ?? []
    // The two counts are for people: a reader doesn't rely on them.
    let counts = bytes.count - LayerFormat.footerSize + 40
    require(copy.count == bytes.count, "a layer has one encoding")
    copy.replaceSubrange(counts..<(counts + 16), with: bytes[counts..<(counts + 16)])
    require(repairedLayer(copy) == bytes, "a layer has one encoding")
  }

  /// Several layers, each after its length (4 bytes): what the chain says of a chunk is what the newest layer
  /// says that sees it.
  static let chain = FuzzedParser("chain") { input in
    var objects: [String: [UInt8]] = [:]
    var ids: [ObjectID] = []
    var rest = input.bytes[...]
    while rest.count >= 4, ids.count < 8 {
      let length = Int(Array(rest.prefix(4)).littleEndian(at: 0, as: UInt32.self))
      rest = rest.dropFirst(4)
      var bytes = Array(rest.prefix(length))
      rest = rest.dropFirst(length)
      guard let id = layerID(bytes) else { return }
      if input.repairsChecksums { bytes = repairedLayer(bytes) }
      objects[id.layerName] = bytes
      ids.append(id)
    }
    let store = MemoryStore(objects)
    guard let newest = ids.last, let top = try? LayerReader(store, newest),
      let chain = try? Chain(store, layers: ids, geometry: top.header.geometry)
    else { return }
    var groups: Set<Int> = []
    for layer in chain.layers {
      for rank in 0..<min(layer.storedGroupCount, 8) { groups.insert(layer.group(rank: rank)) }
    }
    for group in groups where group < chain.geometry.groupCount { checkGroup(group, of: chain) }
    _ = Keyframe.isDue(after: chain)
    if groups.count < 8, (try? Keyframe.write(store, keyframeID, of: chain)) != nil {
      checkKeyframe(store, of: chain, groups)
    }
  }

  private static let keyframeID = ObjectID([UInt8](repeating: 0xFE, count: ObjectID.byteCount))!

  private static func layerID(_ bytes: [UInt8]) -> ObjectID? {
    bytes.count < 32 ? nil : ObjectID(Array(bytes[16..<32]))
  }

  private static func checkGroup(_ group: Int, of chain: Chain) {
    guard let map = try? chain.resolved(group: group) else { return }
    let first = group * ChunkGeometry.chunksPerGroup
    let count = chain.geometry.positions(ofGroup: group).count
    var known = [UInt64](repeating: 0, count: ChunkGeometry.wordsPerGroup)
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    let own = GroupMap()
    for index in chain.layers.indices.reversed() {
      guard let rank = chain.layers[index].rank(ofGroup: group) else { continue }
      own.reset()
      let limit = chain.limits[index] - first
      // A layer that isn't needed any more isn't read either, and may be damaged.
      guard
        (try? unsafe chain.layers[index].overlay(
          group: group, rank: rank, limit: limit, segmentBase: 0, onto: own, scratch: scratch.bytes))
          != nil
      else { return }
      for word in known.indices {
        let visible = mask(from: 0, to: max(0, min(64, limit - word * 64)))
        require(own.known[word] & ~visible == 0, "nothing is seen beyond a layer's limit")
        let news = own.known[word] & ~known[word]
        require(map.stored[word] & news == own.stored[word] & news, "the newest layer counts")
        forEachBit(of: news & own.stored[word]) { bit in
          let at = word * 64 + bit
          require(map.fingerprint(at) == own.fingerprint(at), "the newest fingerprint counts")
          require(Int(map.location(at).segment) < chain.segments.count, "a location has a segment")
        }
        known[word] |= own.known[word]
      }
    }
    require(map.known == known, "a chain knows what its layers know")
    require(map.knownCount <= count, "no chunk lies beyond the disk")
  }

  private static func checkKeyframe(_ store: MemoryStore, of chain: Chain, _ groups: Set<Int>) {
    guard let short = try? Chain(store, layers: [keyframeID], geometry: chain.geometry) else {
      fatalError("doesn't hold: a keyframe that was written can be read")
    }
    for group in groups where group < chain.geometry.groupCount {
      guard let old = try? chain.resolved(group: group), let new = try? short.resolved(group: group)
      else { fatalError("doesn't hold: what was resolved can be resolved again") }
      require(old.stored == new.stored, "a keyframe stores what its chain stored")
      for word in old.stored.indices {
        forEachBit(of: old.stored[word]) { bit in
          let (left, right) = (old.location(word * 64 + bit), new.location(word * 64 + bit))
          require(
            chain.segments[Int(left.segment)] == short.segments[Int(right.segment)]
              && left.offset == right.offset && left.length == right.length,
            "a keyframe leads where its chain led")
        }
      }
    }
  }

  /// The layer with every checksum computed anew; where its tables say, as far as they make sense.
  private static func repairedLayer(_ original: [UInt8]) -> [UInt8] {
    var bytes = original
    guard bytes.count >= LayerFormat.headerSize + LayerFormat.footerSize else { return bytes }
    bytes.setChecksum(of: 0..<120, at: 120)
    let foot = bytes.count - LayerFormat.footerSize
    let directory = bytes.littleEndian(at: foot + 24, as: UInt64.self)
    let table = bytes.littleEndian(at: foot + 8, as: UInt64.self)
    if table <= directory, directory <= UInt64(foot) {
      for entry in stride(from: Int(directory), through: foot - 16, by: 16) {
        let length = Int(bytes.littleEndian(at: entry + 4, as: UInt32.self))
        let offset = bytes.littleEndian(at: entry + 8, as: UInt64.self)
        guard length >= 8, offset <= UInt64(foot - min(length, foot)) else { continue }
        let end = Int(offset) + length
        if end <= foot { bytes.setChecksum(of: Int(offset)..<(end - 8), at: end - 8) }
      }
      bytes.setChecksum(of: Int(table)..<foot, at: foot + 56)
    }
    bytes.setChecksum(of: foot..<(foot + 120), at: foot + 120)
    return bytes
  }
}

extension [UInt8] {
  /// Writes the checksum of a range at `offset`.
  mutating func setChecksum(of range: Range<Int>, at offset: Int) {
    set(checksum64(Array(self[range])), at: offset)
  }

  mutating func set(_ value: UInt64, at offset: Int) {
    for index in 0..<8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
  }
}
