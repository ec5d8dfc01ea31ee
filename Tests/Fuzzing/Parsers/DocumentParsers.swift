import FoundationEssentials
import Platform

@testable import SnapshotRepository
@testable import strobe

// Documents: the JSON behind the checksum.

extension FuzzedParser {
  static let configuration = FuzzedParser("configuration") { input in
    let bytes = document(input)
    let read = try? Document.decode(Repository.Configuration.self, bytes, name: "config.json")
    guard let read else { return }
    let again = try? Document.decode(
      Repository.Configuration.self, Document.encode(read), name: "again")
    require(again?.id == read.id, "a configuration reads back")
    require(again?.defaultChunkSize == read.defaultChunkSize, "a chunk size reads back")
  }

  static let collection = FuzzedParser("collection") { input in
    let bytes = document(input)
    guard let any = try? Document.decode(CollectionRecord.self, bytes, name: "any") else { return }
    let name = CollectionRecord.objectName(any.name)
    let original = MemoryStore([name: bytes])
    guard let read = try? CollectionRecord.read(original, any.name) else { return }
    require(
      read.disks.allSatisfy { !$0.name.utf8.contains(UInt8(ascii: "/")) },
      "a disk's name is a file's")
    let store = MemoryStore()
    guard (try? read.write(store)) != nil, let again = try? CollectionRecord.read(store, read.name)
    else { fatalError("doesn't hold: a collection that was read can be written and read") }
    require(
      again.id == read.id && again.chunkSize == read.chunkSize && again.disks == read.disks
        && again.secret == read.secret, "a collection reads back")
  }

  static let point = FuzzedParser("point") { input in
    let bytes = document(input)
    guard let any = try? Document.decode(RestorePoint.self, bytes, name: "any") else { return }
    let name = RestorePoint.objectName(any.collection, any.id)
    let store = MemoryStore([name: bytes])
    guard let read = try? RestorePoint.read(store, any.collection, any.id) else { return }
    guard
      let again = try? Document.decode(RestorePoint.self, Document.encode(read), name: "again")
    else { fatalError("doesn't hold: a point that was read can be written and read") }
    require(again.disks == read.disks && again.hooks == read.hooks, "a point reads back")
    require(again.frozen == read.frozen && again.sequence == read.sequence, "a point reads back")
    show(read)
    guard PassID(read.id) != nil else { return }
    let summary = PointSummary(read)
    var row: [UInt8] = []
    summary.append(to: &row)
    require(
      PointSummary(row: row, at: 0, collection: read.collection) == summary,
      "what a list shows of a point survives the cache")
  }

  /// The bytes of a document, with the tail that fits when that is asked for.
  static func document(_ input: FuzzInput) -> [UInt8] {
    guard input.repairsChecksums else { return input.bytes }
    let tail = 46
    let lead = Array(",\n  \"checksum\"".utf8)
    var body = input.bytes
    if body.count >= tail, body.suffix(tail).starts(with: lead) { body.removeLast(tail) }
    return body
      + Array(",\n  \"checksum\" : \"xxh3-64:\(hexadecimal(checksum64(body)))\"\n}\n".utf8)
  }

  /// What `strobe show` and `strobe list` make of its numbers.
  private static func show(_ point: RestorePoint) {
    require((try? JSONEncoder().encode(PointJSON(point))) != nil, "a point can be shown as JSON")
    for milliseconds in [point.freezeWindowMilliseconds ?? 0]
      + (point.frozen ?? []).map(\.freezeMilliseconds) + (point.hooks ?? []).map(\.milliseconds)
    {
      require(!Units.number(milliseconds, digits: 1).isEmpty, "a number can be shown")
    }
    for disk in point.disks {
      require(!Units.size(disk.size).isEmpty, "a size can be shown")
      require(disk.layerIDs.count == disk.layers.count, "every layer has an identity")
      _ = disk.changedChunks - disk.clearedChunks
    }
  }
}
