import ChangeDetection
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// A chunk of the plain model: what it holds and the segment and offset where.
private struct Entry: Equatable {
  let fingerprint: Fingerprint
  let segment: ObjectID
  let offset: UInt64
  let length: UInt32
}

/// One random layer: for each changed position an entry, or nil for zeros.
private struct RandomLayer {
  let geometry: ChunkGeometry
  var entries: [Int: Entry?] = [:]

  init(_ geometry: ChunkGeometry, segments: [ObjectID], _ random: inout SeededGenerator) {
    self.geometry = geometry
    guard geometry.chunkCount > 0 else { return }
    for _ in 0..<Int.random(in: 0...12, using: &random) {
      let first = Int.random(in: 0..<geometry.chunkCount, using: &random)
      let length = [1, 3, 64, 300].randomElement(using: &random)!
      for position in first..<min(first + length, geometry.chunkCount) {
        let isCleared = Int.random(in: 0..<3, using: &random) == 0
        entries[position] = .some(isCleared ? nil : Self.entry(segments, geometry, &random))
      }
    }
  }

  private static func entry(
    _ segments: [ObjectID], _ geometry: ChunkGeometry, _ random: inout SeededGenerator
  ) -> Entry {
    Entry(
      fingerprint: Fingerprint(low: random.next() | 1, high: random.next()),
      segment: segments.randomElement(using: &random)!, offset: random.next() >> 10,
      length: UInt32.random(in: 49...UInt32(48 + geometry.chunkSize), using: &random))
  }

  func write(_ store: any ObjectStore, _ id: ObjectID) throws {
    let writer = try LayerWriter(store, LayerHeader(id: id, isKeyframe: false, geometry: geometry))
    var numbers = SegmentNumbers()
    for group in 0..<geometry.groupCount {
      let map = GroupMap()
      for position in geometry.positions(ofGroup: group) {
        let place = position % ChunkGeometry.chunksPerGroup
        guard let change = entries[position] else { continue }
        guard let entry = change else {
          map.clear(word: place >> 6, bits: 1 << UInt64(place & 63))
          continue
        }
        map.set(
          place, entry.fingerprint,
          ChunkLocation(
            segment: numbers.number(of: entry.segment), length: entry.length, offset: entry.offset))
      }
      try writer.append(group: group, map)
    }
    try writer.finish(segments: numbers.ids)
    #expect(writer.changedCount == entries.count)
    #expect(writer.storedCount == entries.values.count { $0 != nil })
  }
}

/// What a whole disk holds, resolved by the plain rule.
private struct PlainModel {
  var entries: [Entry?] = []

  mutating func apply(_ layer: RandomLayer) {
    let count = layer.geometry.chunkCount
    if count < entries.count { entries.removeLast(entries.count - count) }
    entries += [Entry?](repeating: nil, count: count - entries.count)
    for (position, entry) in layer.entries { entries[position] = entry }
  }
}

private func resolved(_ chain: Chain, firstLayer: Int = 0) throws -> [Entry?] {
  var found: [Entry?] = []
  let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
  let map = GroupMap()
  for group in 0..<chain.geometry.groupCount {
    try unsafe chain.resolve(
      group: group, into: map, scratch: scratch.bytes, firstLayer: firstLayer)
    for place in 0..<chain.geometry.positions(ofGroup: group).count {
      guard map.isStored(place) else {
        #expect(map.fingerprint(place).isZero)
        found.append(nil)
        continue
      }
      let location = map.location(place)
      found.append(
        Entry(
          fingerprint: map.fingerprint(place), segment: chain.segments[Int(location.segment)],
          offset: location.offset, length: location.length))
    }
  }
  return found
}

@Suite("A chain")
struct ChainTests {
  /// Sizes around the ends of words and groups, and those of short last chunks.
  private static let sizes = [
    0, 512, 4096, 64 * 4096, 65 * 4096, 4095 * 4096, 4096 * 4096, 4097 * 4096 - 512, 8192 * 4096,
    9000 * 4096 + 1024,
  ]

  @Test("resolves as the plain rule says, whatever layers, sizes and keyframes", arguments: 1...24)
  func model(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let test = try TestRepository()
    let pass = PassID()
    let segments = (0..<5).map { PassID().object($0) }
    var model = PlainModel()
    var layers: [ObjectID] = []
    var number: UInt32 = 0
    var size = Self.sizes.randomElement(using: &random)!
    for step in 0..<Int.random(in: 2...9, using: &random) {
      if Int.random(in: 0..<3, using: &random) == 0 {
        size = Self.sizes.randomElement(using: &random)!
      }
      let geometry = ChunkGeometry(diskSize: size, chunkSize: 4096)
      let layer = RandomLayer(geometry, segments: segments, &random)
      layers.append(pass.object(number))
      number += 1
      try layer.write(test.store, layers[layers.count - 1])
      model.apply(layer)
      let chain = try Chain(test.store, layers: layers, geometry: geometry)
      #expect(try resolved(chain) == model.entries, "seed \(seed), step \(step)")
      if Int.random(in: 0..<4, using: &random) == 0 {
        let id = pass.object(number)
        number += 1
        try Keyframe.write(test.store, id, of: chain)
        layers = [id]
        let short = try Chain(test.store, layers: layers, geometry: geometry)
        #expect(try resolved(short) == model.entries, "seed \(seed), step \(step), keyframe")
        #expect(short.layers[0].header.isKeyframe)
      }
    }
  }

  @Test("resolved groups are shared and the same as those that are not")
  func shared() throws {
    var random = SeededGenerator(seed: 5)
    let test = try TestRepository()
    let geometry = ChunkGeometry(diskSize: 20_000 * 4096, chunkSize: 4096)
    let id = PassID().object(0)
    let layer = RandomLayer(geometry, segments: [PassID().object(0)], &random)
    try layer.write(test.store, id)
    let chain = try Chain(test.store, layers: [id], geometry: geometry)
    for group in [0, 1, 2, 3, 4, 0, 4, 2, 1] {
      let map = try chain.resolved(group: group)
      for place in 0..<geometry.positions(ofGroup: group).count {
        let entry = layer.entries[group * 4096 + place] ?? nil
        #expect(map.isStored(place) == (entry != nil))
        #expect(map.fingerprint(place) == entry?.fingerprint ?? .zero)
      }
      #expect(chain.touches(group: group) == (map.knownCount > 0))
    }
  }

  @Test("refuses layers that don't belong together")
  func mismatches() throws {
    let test = try TestRepository()
    let pass = PassID()
    let geometry = ChunkGeometry(diskSize: 1 << 20, chunkSize: 4096)
    func layer(_ number: UInt32, _ geometry: ChunkGeometry, keyframe: Bool = false) throws
      -> ObjectID
    {
      let id = pass.object(number)
      let writer = try LayerWriter(
        test.store, LayerHeader(id: id, isKeyframe: keyframe, geometry: geometry))
      try writer.finish(segments: [])
      return id
    }
    let plain = try layer(0, geometry)
    let keyframe = try layer(1, geometry, keyframe: true)
    let larger = try layer(2, ChunkGeometry(diskSize: 2 << 20, chunkSize: 4096))
    let coarser = try layer(3, ChunkGeometry(diskSize: 1 << 20, chunkSize: 8192))
    for layers in [[plain], [larger, plain], [keyframe, plain], [keyframe]] {
      _ = try Chain(test.store, layers: layers, geometry: geometry)
    }
    for layers in [
      [larger], [plain, larger], [coarser, plain], [coarser], [plain, keyframe], [],
    ] {
      let error = #expect(throws: StrobeError.self) {
        _ = try Chain(test.store, layers: layers, geometry: geometry)
      }
      #expect(error?.isDamage == true)
    }
    let missing = #expect(throws: StrobeError.self) {
      _ = try Chain(test.store, layers: [pass.object(9), plain], geometry: geometry)
    }
    #expect(missing?.reason == .notFound)
  }

  @Test(
    "every point of a disk that shrinks, grows, clears and gets keyframes restores bit for bit",
    arguments: 1...6)
  func contents(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let test = try TestRepository()
    var collection = try TestCollection(test.repository)
    var disk = ModelDisk(size: 40 * 4096)
    var expected: [ModelDisk] = []
    for step in 0..<8 {
      if step > 0 { disk.resize(to: Int.random(in: 1...400, using: &random) * 512) }
      for _ in 0..<10 {
        let seed: UInt64? =
          Int.random(in: 0..<4, using: &random) == 0 ? nil : random.next() % 50 + 1
        disk.set(Int.random(in: 0..<disk.geometry.chunkCount, using: &random), seed)
      }
      try collection.add([("a", disk)], keyframe: step % 3 == 2)
      expected.append(disk)
    }
    for (index, point) in collection.points.enumerated() {
      #expect(
        try restore(test.repository, point, "a") == expected[index].bytes,
        "seed \(seed), point \(index)")
    }
  }
}
