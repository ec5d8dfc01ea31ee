import ChangeDetection
package import Platform

// Where damaged records were stored again. A segment and what names it never change; a record that went bad gets a
// replacement in another segment, which this document names. It is looked for only when a record can't
// be read.
//
// Invariants:
// - A replacement is durable before a document names it.
// - A replacement is checked against the fingerprint of the record that it stands for, like any record.

/// The replacements of one segment's records: `repairs/<2 hex>/<segment id>`.
package struct Repairs: Codable, Sendable, Equatable {
  /// One record that is to be read elsewhere.
  package struct Replacement: Codable, Sendable, Equatable {
    /// Where the damaged record is, in bytes.
    package let damagedOffset: Int
    /// The segment that holds the good one: 32 hexadecimal digits.
    let segmentID: String
    /// Bytes.
    package let offset: Int
    /// Bytes of the record with its header.
    package let length: Int

    package init(damagedOffset: Int, segment: ObjectID, offset: Int, length: Int) {
      self.damagedOffset = damagedOffset
      segmentID = segment.description
      self.offset = offset
      self.length = length
    }

    package var segment: ObjectID { ObjectID(segmentID)! }

    fileprivate var makesSense: Bool {
      ObjectID(segmentID) != nil && damagedOffset >= 0 && damagedOffset < Int.max >> 8
        && offset >= SegmentFormat.headerSize && offset < Int.max >> 8
        && length > SegmentFormat.recordHeaderSize && length < Int(UInt32.max)
    }
  }

  let format: Int
  /// The segment whose records are replaced: 32 hexadecimal digits.
  let segment: String
  /// In the order of their `damagedOffset`, each once.
  package let replacements: [Replacement]

  package init(_ segment: ObjectID, _ replacements: [Replacement]) {
    format = Document.format
    self.segment = segment.description
    var newest: [Int: Replacement] = [:]
    for replacement in replacements { newest[replacement.damagedOffset] = replacement }
    self.replacements = newest.values.sorted { $0.damagedOffset < $1.damagedOffset }
  }

  package static func objectName(_ segment: ObjectID) -> String {
    "repairs/" + segment.segmentName.dropFirst("segments/".count)
  }

  /// - Returns: nil when nothing of the segment was replaced.
  package static func read(
    _ store: any ObjectStore, _ segment: ObjectID
  ) throws(StrobeError) -> Repairs? {
    let name = objectName(segment)
    do throws(StrobeError) {
      let repairs = try Document.decode(
        Repairs.self, store.get(name, limit: Document.sizeLimit), name: name)
      let offsets = repairs.replacements.map(\.damagedOffset)
      guard repairs.segment == segment.description,
        repairs.replacements.allSatisfy(\.makesSense),
        zip(offsets, offsets.dropFirst()).allSatisfy({ $0 < $1 })
      else { throw .damaged(name, expected: "repairs of \(segment)", found: "other fields") }
      return repairs
    } catch {
      if error.reason == .notFound { return nil }
      throw error
    }
  }

  package func write(_ store: any ObjectStore, _ id: ObjectID) throws(StrobeError) {
    try store.put(Self.objectName(id), Document.encode(self), replacing: true)
  }

  package func adding(_ others: [Replacement], to id: ObjectID) -> Repairs {
    Repairs(id, replacements + others)
  }

  /// What stands for the record at `offset`.
  package func replacement(at offset: UInt64) -> Replacement? {
    var low = 0
    var high = replacements.count
    while low < high {
      let middle = (low + high) / 2
      if replacements[middle].damagedOffset < Int(offset) {
        low = middle + 1
      } else {
        high = middle
      }
    }
    guard low < replacements.count, replacements[low].damagedOffset == Int(offset) else {
      return nil
    }
    return replacements[low]
  }

  /// The segments that hold the replacements.
  package var targets: Set<ObjectID> { Set(replacements.map(\.segment)) }
}

/// The repairs of many segments, each read once; most have none, so the folder is asked first.
struct RepairShelf {
  private let store: any ObjectStore
  private var known: [ObjectID: Repairs?] = [:]

  init(_ store: any ObjectStore) { self.store = store }

  mutating func of(_ segment: ObjectID) throws(StrobeError) -> Repairs? {
    if let found = known[segment] { return found }
    let repairs = try Repairs.read(store, segment)
    known[segment] = .some(repairs)
    return repairs
  }
}
