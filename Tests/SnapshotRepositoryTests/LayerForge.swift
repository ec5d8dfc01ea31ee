import Platform
import SnapshotRepository
import TestSupport
import Testing

/// Builds layers byte by byte, right checksums included, so that a test can make any field lie.
struct LayerForge {
  struct Group {
    var index: UInt32 = 0
    var storedCount: UInt32?
    var mask: UInt64?
    /// By word: what changed and what of it is stored.
    var words: [(word: Int, changed: UInt64, stored: UInt64)] = [(0, 0b11, 0b01)]
    var locations: [(segment: UInt32, length: UInt32, offset: UInt64)] = [(0, 100, 64)]
    var padding = 0

    var encoded: [UInt8] {
      var bytes: [UInt8] = []
      bytes.append(littleEndian: index)
      bytes.append(littleEndian: storedCount ?? UInt32(locations.count))
      bytes.append(littleEndian: mask ?? words.reduce(UInt64(0)) { $0 | 1 << UInt64($1.word) })
      for word in words { bytes.append(littleEndian: word.changed) }
      for word in words { bytes.append(littleEndian: word.stored) }
      for _ in locations { bytes += [UInt8](repeating: 7, count: 16) }
      for location in locations {
        bytes.append(littleEndian: location.segment)
        bytes.append(littleEndian: location.length)
        bytes.append(littleEndian: location.offset)
      }
      bytes += [UInt8](repeating: 0, count: padding)
      bytes.append(littleEndian: checksum64(bytes))
      return bytes
    }
  }

  var id = PassID().object(0)
  var version: UInt32 = 1
  var flags: UInt32 = 0
  var diskSize: UInt64 = 100 * 4096
  var chunkSize: UInt32 = 4096
  var headerReserved: UInt8 = 0
  var groups = [Group()]
  var segmentCount: UInt64 = 1
  /// Each replaces the true value of a directory entry.
  var directory: [(index: UInt32, length: UInt32, offset: UInt64)]?
  /// Added to the footer's fields: segment table, segments, directory, groups, changed, stored.
  var footer: [UInt64] = [0, 0, 0, 0, 0, 0]
  var footerReserved: UInt8 = 0
  var gap = 0

  var encoded: [UInt8] {
    var bytes = header
    var entries: [(index: UInt32, length: UInt32, offset: UInt64)] = []
    for group in groups {
      let encoded = group.encoded
      entries.append((group.index, UInt32(encoded.count), UInt64(bytes.count)))
      bytes += encoded
      bytes += [UInt8](repeating: 0, count: gap)
    }
    let table = UInt64(bytes.count)
    var tables = [UInt8](repeating: 3, count: Int(segmentCount) * 16)
    for entry in directory ?? entries {
      tables.append(littleEndian: entry.index)
      tables.append(littleEndian: entry.length)
      tables.append(littleEndian: entry.offset)
    }
    bytes += tables
    let count = UInt64((directory ?? entries).count)
    var foot = Array("STRBLEND".utf8)
    for (value, lie) in zip([table, segmentCount, table + segmentCount * 16, count, 2, 1], footer) {
      foot.append(littleEndian: value &+ lie)
    }
    foot.append(littleEndian: checksum64(tables))
    foot += [UInt8](repeating: footerReserved, count: 56)
    foot.append(littleEndian: checksum64(foot))
    return bytes + foot
  }

  private var header: [UInt8] {
    var bytes = Array("STRBLAYR".utf8)
    bytes.append(littleEndian: version)
    bytes.append(littleEndian: flags)
    bytes += id.bytes
    bytes.append(littleEndian: diskSize)
    bytes.append(littleEndian: chunkSize)
    bytes += [UInt8](repeating: headerReserved, count: 76)
    bytes.append(littleEndian: checksum64(bytes))
    return bytes
  }

  /// Reads the forged layer as the only one of a chain, every group of it.
  func read() throws {
    let test = try TestRepository()
    try test.store.put(id.layerName, encoded, replacing: false)
    let layer = try LayerReader(test.store, id)
    let chain = try Chain(test.store, layers: [id], geometry: layer.header.geometry)
    for rank in 0..<layer.storedGroupCount {
      _ = try chain.resolved(group: layer.group(rank: rank))
    }
  }
}

/// A forged layer with a name for what is wrong with it.
struct Forgery: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let change: @Sendable (inout LayerForge) -> Void

  init(_ name: String, _ change: @escaping @Sendable (inout LayerForge) -> Void) {
    testDescription = name
    self.change = change
  }

  static let headers: [Forgery] = [
    Forgery("version 0") { $0.version = 0 },
    Forgery("an unknown flag") { $0.flags = 2 },
    Forgery("a keyframe with an unknown flag") { $0.flags = 0x8000_0001 },
    Forgery("a disk of 2^64 - 1 bytes") { $0.diskSize = .max },
    Forgery("a disk of 2^63 bytes") { $0.diskSize = 1 << 63 },
    Forgery("a disk of 2^55 bytes") { $0.diskSize = 1 << 55 },
    Forgery("no chunk size") { $0.chunkSize = 0 },
    Forgery("an odd chunk size") { $0.chunkSize = 4097 },
    Forgery("a tiny chunk size") { $0.chunkSize = 2048 },
    Forgery("a huge chunk size") { $0.chunkSize = 1 << 31 },
    Forgery("reserved bytes of the header") { $0.headerReserved = 1 },
    Forgery("reserved bytes of the footer") { $0.footerReserved = 1 },
    Forgery("a group behind the end of the disk") { $0.diskSize = 0 },
    Forgery("chunks behind the end of the disk") { $0.diskSize = 4096 },
  ]

  static let footers: [Forgery] =
    (0..<4).flatMap { field in
      [1, 16, UInt64.max, 1 << 40, 1 << 62, 1 << 63].map { lie in
        Forgery("footer field \(field) off by \(Int64(bitPattern: lie))") { $0.footer[field] = lie }
      }
    } + [
      Forgery("2^40 segments and a directory to match") {
        $0.footer = [0, 1 << 40, 1 << 44, 0, 0, 0]
      },
      Forgery("counts that cancel each other out") { $0.footer = [0, 1, 16, UInt64.max, 0, 0] },
      Forgery("a table within the header") {
        let start = UInt64(128 + $0.groups[0].encoded.count)
        $0.footer = [64 &- start, (start - 64) / 16, 0, 0, 0, 0]
      },
      Forgery("2^63 changed chunks") { $0.footer[4] = 1 << 63 },
    ]

  static let directories: [Forgery] = [
    Forgery("a gap between groups") { $0.gap = 8 },
    Forgery("a group twice") { $0.groups = [.init(), .init()] },
    Forgery("groups that overlap") {
      let length = UInt32($0.groups[0].encoded.count)
      $0.diskSize = 9000 * 4096
      $0.directory = [(0, length, 128), (1, length, 128)]
    },
    Forgery("groups in falling order") {
      $0.diskSize = 9000 * 4096
      $0.groups = [.init(index: 1), .init(index: 0)]
    },
    Forgery("a group with another's index") {
      $0.groups[0].index = 1
      $0.directory = [(0, 72, 128)]
    },
    Forgery("a directory with another's index") {
      $0.diskSize = 9000 * 4096
      $0.directory = [(1, UInt32($0.groups[0].encoded.count), 128)]
    },
    Forgery("an offset of 2^64 - 1") { $0.directory = [(0, 72, .max)] },
    Forgery("a length of 2^32 - 1") { $0.directory = [(0, .max, 128)] },
    Forgery("a length of 0") { $0.directory = [(0, 0, 128)] },
    Forgery("a length of 17") { $0.directory = [(0, 17, 128)] },
    Forgery("no directory") { $0.directory = [] },
    Forgery("a group that is longer than any") { $0.groups[0].padding = 140_000 },
  ]

  static let groups: [Forgery] = [
    Forgery("2^32 - 1 stored chunks") { $0.groups[0].storedCount = .max },
    Forgery("no stored chunks, but one") { $0.groups[0].storedCount = 0 },
    Forgery("a mask of all words") { $0.groups[0].mask = .max },
    Forgery("an empty mask") { $0.groups[0].mask = 0 },
    Forgery("a group of nothing") { $0.groups = [.init(words: [], locations: [])] },
    Forgery("a changed word without a bit") { $0.groups[0].words.append((1, 0, 0)) },
    Forgery("stored, but not changed") { $0.groups[0].words = [(0, 0b10, 0b01)] },
    Forgery("more stored bits than chunks") { $0.groups[0].words = [(0, 0b11, 0b11)] },
    Forgery("bytes that belong to nothing") { $0.groups[0].padding = 16 },
    Forgery("a word behind the end") { $0.groups[0].words = [(2, 0b11, 0b01)] },
    Forgery("a bit behind the end") { $0.groups[0].words = [(1, 1 << 36, 1 << 36)] },
    Forgery("a segment that isn't in the table") { $0.groups[0].locations[0].segment = 1 },
    Forgery("segment 2^32 - 1") { $0.groups[0].locations[0].segment = .max },
    Forgery("a segment where the table is empty") { $0.segmentCount = 0 },
    Forgery("a record of length 0") { $0.groups[0].locations[0].length = 0 },
    Forgery("a record without content") { $0.groups[0].locations[0].length = 48 },
    Forgery("a record that is too long") { $0.groups[0].locations[0].length = 48 + 4097 },
    Forgery("a record of 2^32 - 1 bytes") { $0.groups[0].locations[0].length = .max },
    Forgery("an offset of 2^64 - 1 in a segment") { $0.groups[0].locations[0].offset = .max },
    Forgery("an offset of 2^63") { $0.groups[0].locations[0].offset = 1 << 63 },
  ]
}
