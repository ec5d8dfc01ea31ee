import ChangeDetection
import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("A layer")
struct LayerTests {
  @Test("reads back as it was written", arguments: 1...20)
  func roundTrip(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let test = try TestRepository()
    let chunks = Int.random(in: 1...30_000, using: &random)
    let geometry = ChunkGeometry(diskSize: chunks * 4096 - 512, chunkSize: 4096)
    let segments = (0..<7).map { PassID().object($0) }
    let header = LayerHeader(id: PassID().object(3), isKeyframe: seed % 2 == 0, geometry: geometry)
    let writer = try LayerWriter(test.store, header)
    var maps: [Int: GroupMap] = [:]
    for group in 0..<geometry.groupCount where Bool.random(using: &random) {
      let map = randomMap(geometry.positions(ofGroup: group).count, segments.count, &random)
      try writer.append(group: group, map)
      if map.knownCount > 0 { maps[group] = map }
    }
    try writer.finish(segments: segments)
    let reader = try LayerReader(test.store, header.id)
    #expect(reader.header == header)
    #expect(reader.segments == segments)
    #expect(reader.storedGroupCount == maps.count)
    #expect(reader.footer.changedCount == maps.values.reduce(0) { $0 + $1.knownCount })
    #expect(reader.footer.storedCount == maps.values.reduce(0) { $0 + $1.storedCount })
    for group in 0..<geometry.groupCount {
      #expect((reader.rank(ofGroup: group) != nil) == (maps[group] != nil))
    }
    for (group, map) in maps {
      #expect(try describe(read(reader, group)) == describe(map), "seed \(seed), group \(group)")
    }
  }

  private func randomMap(_ count: Int, _ segments: Int, _ random: inout SeededGenerator) -> GroupMap
  {
    let map = GroupMap()
    let density = [0, 1, 50, 100].randomElement(using: &random)!
    for place in 0..<count where Int.random(in: 0..<100, using: &random) < density {
      if Int.random(in: 0..<3, using: &random) == 0 {
        map.clear(word: place >> 6, bits: 1 << UInt64(place & 63))
      } else {
        map.set(
          place, Fingerprint(low: random.next(), high: random.next()),
          ChunkLocation(
            segment: UInt32.random(in: 0..<UInt32(segments), using: &random),
            length: UInt32.random(in: 49...4144, using: &random), offset: random.next() >> 10))
      }
    }
    return map
  }

  private func read(_ reader: LayerReader, _ group: Int) throws -> GroupMap {
    let map = GroupMap()
    let scratch = AlignedBuffer(count: LayerFormat.largestGroup)
    try unsafe reader.overlay(
      group: group, rank: reader.rank(ofGroup: group)!, limit: .max, segmentBase: 0, onto: map,
      scratch: scratch.bytes)
    return map
  }

  private func describe(_ map: GroupMap) -> [String] {
    [map.known.description, map.stored.description]
      + (0..<4096).filter(map.isStored).map { "\($0) \(map.fingerprint($0)) \(map.location($0))" }
  }

  @Test("with every chunk of a group stored is as large as the format says")
  func largestGroup() throws {
    let test = try TestRepository()
    let geometry = ChunkGeometry(diskSize: 4096 * 4096, chunkSize: 4096)
    let id = PassID().object(0)
    let writer = try LayerWriter(
      test.store, LayerHeader(id: id, isKeyframe: false, geometry: geometry))
    let map = GroupMap()
    for place in 0..<4096 {
      map.set(
        place, Fingerprint(low: 1, high: 2), ChunkLocation(segment: 0, length: 49, offset: 64))
    }
    try writer.append(group: 0, map)
    try writer.finish(segments: [PassID().object(0)])
    #expect(LayerFormat.largestGroup == 132_120)
    #expect(try LayerReader(test.store, id).size == 128 + 132_120 + 16 + 16 + 128)
    #expect(try read(LayerReader(test.store, id), 0).storedCount == 4096)
  }

  @Test("that is forged, but true, is read")
  func unharmed() throws {
    try LayerForge().read()
    var forge = LayerForge()
    forge.diskSize = UInt64(Int.max) >> 8
    forge.flags = 1
    try forge.read()
  }

  @Test(
    "whose numbers lie under right checksums is damaged, not believed",
    arguments: Forgery.headers + Forgery.footers + Forgery.directories + Forgery.groups)
  func hostile(_ forgery: Forgery) throws {
    var forge = LayerForge()
    forgery.change(&forge)
    let error = #expect(throws: StrobeError.self) { try forge.read() }
    #expect(error?.isDamage == true, "\(String(describing: error))")
  }

  @Test("of a newer version is called newer, not damaged")
  func newer() throws {
    var forge = LayerForge()
    forge.version = 2
    let error = #expect(throws: StrobeError.self) { try forge.read() }
    #expect(error?.reason == .newerVersion)
  }

  @Test("of another name is damaged")
  func renamed() throws {
    let test = try TestRepository()
    let other = PassID().object(0)
    try test.store.put(other.layerName, LayerForge().encoded, replacing: false)
    let error = #expect(throws: StrobeError.self) { _ = try LayerReader(test.store, other) }
    #expect(error?.isDamage == true)
  }
}
