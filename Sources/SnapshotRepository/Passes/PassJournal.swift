import ChangeDetection
import Glibc
package import Platform

// What a pass stored, for the pass after it in case that this one never commits. `docs/format.md` has
// the fields.
//
//   journal/<collection>/<pass>/journal.json    whose it is; a journal exists while this is there
//   journal/<collection>/<pass>/disk-<n>.spool  fingerprint and location of what was stored, by position
//
// Invariants:
// - A journal is durable before the first segment of its pass is created, so every segment of an
//   interrupted pass has one.
// - Whoever removes or punches segments asks whether the pass is alive, then for its journal, and only then
//   reads the points. A pass that took segments over removes their journal only after its commit. So a
//   segment whose journal wasn't seen is either named by a point that is then seen, or by nobody ever.
// - Journals of a collection are removed only under its writer lock: nobody takes over from them then.
// - Nothing of a journal is believed unchecked (`EarlierPasses.swift`): after a power cut any of its
//   bytes may be zeros, old, or torn. Damage costs storing again, never an error or a wrong byte.

/// Where a journal is.
package struct JournalPlace: Sendable, Equatable {
  static let room = "journal"
  private static let documentFile = "journal.json"

  package let collection: String
  package let pass: PassID

  package init(collection: String, pass: PassID) {
    self.collection = collection
    self.pass = pass
  }

  package var folder: String { "\(Self.room)/\(collection)/\(pass)" }
  package var documentName: String { "\(folder)/\(Self.documentFile)" }

  /// The spool of the pass's `index`th disk.
  package func spoolName(_ index: Int) -> String { "\(folder)/\(Self.spoolFile(index))" }

  static func spoolFile(_ index: Int) -> String { "disk-\(index).spool" }

  func exists(_ store: any ObjectStore) throws(StrobeError) -> Bool {
    try store.names(in: folder).contains(Self.documentFile)
  }

  /// The places of all passes that have a folder in a collection's room, with a journal or without.
  static func all(_ store: any ObjectStore, of collection: String) throws(StrobeError)
    -> [JournalPlace]
  {
    try store.names(in: "\(room)/\(collection)").compactMap { name in
      PassID(name).map { JournalPlace(collection: collection, pass: $0) }
    }
  }
}

/// The document of a journal.
struct JournalRecord: Codable, Sendable {
  struct Disk: Codable, Sendable {
    let name: String
    /// Bytes.
    let size: Int
    /// The name of the spool's file in the journal's folder.
    let spool: String
  }

  let format: Int
  /// 24 hexadecimal digits.
  let pass: String
  let collectionID: String
  /// Bytes.
  let chunkSize: Int
  /// XXH3-64 of the fingerprint secret, 16 hexadecimal digits; never the secret itself.
  let secretChecksum: String
  let created: Timestamp
  let disks: [Disk]

  init(_ pass: PassID, _ collection: CollectionRecord, _ disks: [Disk]) {
    format = Document.format
    self.pass = pass.description
    collectionID = collection.id
    chunkSize = collection.chunkSize
    secretChecksum = Self.checksum(ofSecret: collection)
    created = .now
    self.disks = disks
  }

  private static func checksum(ofSecret collection: CollectionRecord) -> String {
    hexadecimal(checksum64(collection.secret?.bytes ?? []))
  }

  /// Whether the fingerprints and positions of the journal mean the same in `collection`.
  func belongs(to collection: CollectionRecord, _ place: JournalPlace) -> Bool {
    pass == place.pass.description && collectionID == collection.id
      && chunkSize == collection.chunkSize
      && secretChecksum == Self.checksum(ofSecret: collection)
      && Set(disks.map(\.name)).count == disks.count
      // What the document says is a name in its own folder and no other path.
      && disks.enumerated().allSatisfy { $1.spool == JournalPlace.spoolFile($0) }
  }

  static func read(_ store: any ObjectStore, _ place: JournalPlace) throws(StrobeError)
    -> JournalRecord
  {
    try Document.decode(
      JournalRecord.self, store.get(place.documentName, limit: Document.sizeLimit),
      name: place.documentName)
  }
}

/// The journal of a running pass.
package final class PassJournal: Sendable {
  /// One for each disk, in their order.
  package let spools: [PassSpool]
  private let repository: Repository
  private let place: JournalPlace

  /// Makes a journal, durably. The pass must be registered and hold the collection's writer lock.
  package init(
    _ repository: Repository, _ pass: PassID, _ collection: CollectionRecord,
    disks: [(name: String, size: Int)]
  ) throws(StrobeError) {
    self.repository = repository
    place = JournalPlace(collection: collection.name, pass: pass)
    do throws(StrobeError) {
      spools = try Self.makeSpools(repository, place, count: disks.count)
      let records = disks.enumerated().map { index, disk in
        JournalRecord.Disk(
          name: disk.name, size: disk.size, spool: JournalPlace.spoolFile(index))
      }
      // Last, and with it the names of the spools are durable.
      try repository.store.put(
        place.documentName, Document.encode(JournalRecord(pass, collection, records)),
        replacing: false)
    } catch {
      try? repository.removeJournal(place)
      throw error
    }
  }

  private static func makeSpools(
    _ repository: Repository, _ place: JournalPlace, count: Int
  ) throws(StrobeError) -> [PassSpool] {
    try makeDirectories("\(repository.localFolder)/\(place.folder)")
    var spools: [PassSpool] = []
    for index in 0..<count {
      spools.append(
        try PassSpool(creating: "\(repository.localFolder)/\(place.spoolName(index))"))
    }
    return spools
  }

  /// Removes the journal, durably: after the commit, or when nothing was stored.
  package func remove() throws(StrobeError) { try repository.removeJournal(place) }
}

extension Repository {
  /// Removes a journal: first what makes it one, durably, then the rest.
  func removeJournal(_ place: JournalPlace) throws(StrobeError) {
    try store.remove(place.documentName)
    let folder = "\(localFolder)/\(place.folder)"
    guard try FileFacts(path: folder) != nil else { return }
    for name in try namesInDirectory(folder) { try removeFile("\(folder)/\(name)") }
    if unsafe rmdir(folder) != 0 && errno != ENOENT {
      throw .system(errno, call: "rmdir", object: folder)
    }
  }
}
