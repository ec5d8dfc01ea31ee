package import ChangeDetection
package import Platform

/// What a collection is: its identity, its chunk size, its secret, and the disks that it remembers.
package struct CollectionRecord: Codable, Sendable, Equatable {
  package struct Disk: Codable, Sendable, Equatable {
    package let name: String
    package let source: String

    package init(name: String, source: String) {
      self.name = name
      self.source = source
    }
  }

  let format: Int
  /// 24 hexadecimal digits.
  package let id: String
  package let name: String
  /// Bytes.
  package let chunkSize: Int
  package let fingerprint: String
  package let fingerprintSecret: String
  package let created: Timestamp
  package let disks: [Disk]

  package static let fingerprintName = "xxh3-128"

  package init(name: String, chunkSize: Int, disks: [Disk]) {
    self.init(
      id: PassID().description, name: name, chunkSize: chunkSize,
      fingerprintSecret: hexadecimal(FingerprintSecret().bytes), created: .now, disks: disks)
  }

  /// The record that a point of the collection remembers, for when the collection's own is lost.
  package init(recoveredFrom point: RestorePoint) {
    self.init(
      id: point.collectionID, name: point.collection, chunkSize: point.chunkSize,
      fingerprintSecret: point.fingerprintSecret, created: point.created,
      disks: point.disks.map { Disk(name: $0.name, source: $0.source) })
  }

  private init(
    id: String, name: String, chunkSize: Int, fingerprintSecret: String, created: Timestamp,
    disks: [Disk]
  ) {
    format = Document.format
    self.id = id
    self.name = name
    self.chunkSize = chunkSize
    fingerprint = Self.fingerprintName
    self.fingerprintSecret = fingerprintSecret
    self.created = created
    self.disks = disks
  }

  package func remembering(_ disks: [Disk]) -> CollectionRecord {
    CollectionRecord(
      id: id, name: name, chunkSize: chunkSize, fingerprintSecret: fingerprintSecret,
      created: created, disks: disks)
  }

  package static func objectName(_ collection: String) -> String {
    "collections/\(collection)/collection.json"
  }

  package var secret: FingerprintSecret? {
    bytes(hexadecimal: fingerprintSecret).flatMap(FingerprintSecret.init)
  }

  package static func read(
    _ store: any ObjectStore, _ collection: String
  ) throws(StrobeError) -> CollectionRecord {
    let name = objectName(collection)
    let record = try Document.decode(
      CollectionRecord.self, store.get(name, limit: Document.sizeLimit), name: name)
    guard record.name == collection, record.secret != nil, record.fingerprint == fingerprintName,
      ChunkGeometry.isValid(chunkSize: record.chunkSize)
    else { throw .damaged(name, expected: "collection \(collection)", found: "other fields") }
    return record
  }

  package func write(_ store: any ObjectStore) throws(StrobeError) {
    try store.put(Self.objectName(name), Document.encode(self), replacing: true)
  }
}
