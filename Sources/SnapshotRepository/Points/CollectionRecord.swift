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
  /// A ``FingerprintKind``; never changes.
  package let fingerprint: String
  package let fingerprintSecret: String
  package let created: Timestamp
  package let disks: [Disk]
  /// Nil for a machine that is none.
  package let guest: GuestRecord?

  package init(
    name: String, chunkSize: Int, fingerprint: FingerprintKind = .xxh3, disks: [Disk]
  ) {
    let secret = FingerprintSecret(fingerprint)
    self.init(
      format: fingerprint.format, id: PassID().description, name: name, chunkSize: chunkSize,
      fingerprint: fingerprint.rawValue, fingerprintSecret: hexadecimal(secret.bytes),
      created: .now, disks: disks, guest: nil)
  }

  /// The record that a point of the collection remembers, for when the collection's own is lost.
  package init(recoveredFrom point: RestorePoint) {
    self.init(
      format: point.format, id: point.collectionID, name: point.collection,
      chunkSize: point.chunkSize, fingerprint: point.fingerprint ?? FingerprintKind.xxh3.rawValue,
      fingerprintSecret: point.fingerprintSecret, created: point.created,
      disks: point.disks.map { Disk(name: $0.name, source: $0.source) }, guest: nil)
  }

  private init(
    format: Int, id: String, name: String, chunkSize: Int, fingerprint: String,
    fingerprintSecret: String, created: Timestamp, disks: [Disk], guest: GuestRecord?
  ) {
    self.format = guest == nil ? format : max(format, MachineRecord.format)
    self.id = id
    self.name = name
    self.chunkSize = chunkSize
    self.fingerprint = fingerprint
    self.fingerprintSecret = fingerprintSecret
    self.created = created
    self.disks = disks
    self.guest = guest
  }

  package func remembering(_ disks: [Disk], _ guest: GuestRecord? = nil) -> CollectionRecord {
    CollectionRecord(
      format: format, id: id, name: name, chunkSize: chunkSize, fingerprint: fingerprint,
      fingerprintSecret: fingerprintSecret, created: created, disks: disks, guest: guest)
  }

  package static func objectName(_ collection: String) -> String {
    "collections/\(collection)/collection.json"
  }

  package var secret: FingerprintSecret? {
    FingerprintSecret(hexadecimal: fingerprintSecret, kind: fingerprint, format: format)
  }

  package static func read(
    _ store: any ObjectStore, _ collection: String
  ) throws(StrobeError) -> CollectionRecord {
    let name = objectName(collection)
    let record = try Document.decode(
      CollectionRecord.self, store.get(name, limit: Document.sizeLimit), name: name)
    guard record.name == collection, record.secret != nil,
      ChunkGeometry.isValid(chunkSize: record.chunkSize), Names.areFiles(record.disks.map(\.name))
    else { throw .damaged(name, expected: "collection \(collection)", found: "other fields") }
    return record
  }

  package func write(_ store: any ObjectStore) throws(StrobeError) {
    try store.put(Self.objectName(name), Document.encode(self), replacing: true)
  }
}

extension FingerprintKind {
  /// The format of documents that speak of such fingerprints: a Strobe that knows only XXH3 must not take them
  /// for damaged, nor make a new collection of them.
  package var format: Int { self == .xxh3 ? Document.format : 2 }
}

extension FingerprintSecret {
  /// As documents have it.
  ///
  /// - Returns: nil unless there are 192 bytes of a kind that the format knows.
  init?(hexadecimal text: String, kind: String?, format: Int) {
    guard let kind = FingerprintKind(rawValue: kind ?? FingerprintKind.xxh3.rawValue),
      format >= kind.format, let bytes = Platform.bytes(hexadecimal: text)
    else { return nil }
    self.init(bytes, kind: kind)
  }
}
