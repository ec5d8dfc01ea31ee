import ChangeDetection
import Platform

/// What a list shows of a restore point.
public struct PointSummary: Codable, Sendable, Equatable {
  public let collection: String
  /// 24 hexadecimal digits.
  public let id: String
  /// Orders the points of a collection.
  public let sequence: Int
  public let created: Timestamp
  public let consistency: Consistency
  public let diskCount: Int
  /// Bytes of all disks.
  public let size: Int
  /// Bytes of content that changed against the parent.
  public let changedBytes: Int
  /// Bytes added to the segments.
  public let storedBytes: Int
  public let freezeWindowMilliseconds: Double?
  /// How its fingerprints are made, a ``FingerprintKind``; nil: `xxh3-128`.
  public let fingerprint: String?
  /// Whether `delete` and `prune` leave it alone. No part of the point: may change.
  public package(set) var isProtected = false

  private enum CodingKeys: String, CodingKey {
    case collection, id, sequence, created, consistency, diskCount, size, changedBytes, storedBytes
    case freezeWindowMilliseconds, fingerprint
    case isProtected = "protected"
  }

  package init(_ point: RestorePoint) {
    collection = point.collection
    id = point.id
    sequence = point.sequence
    created = point.created
    consistency = point.consistency
    diskCount = point.disks.count
    size = point.disks.reduce(0) { $0 + $1.size }
    changedBytes = point.disks.reduce(0) { $0 + $1.changedBytes }
    storedBytes = point.disks.reduce(0) { $0 + $1.storedBytes }
    freezeWindowMilliseconds = point.freezeWindowMilliseconds
    fingerprint = point.fingerprint
  }

  static let rowSize = 80

  /// The row of a point index; see `docs/format.md`.
  func append(to bytes: inout [UInt8]) {
    bytes += PassID(id)!.bytes
    bytes.append(littleEndian: UInt32(diskCount))
    for value in [sequence, created.nanoseconds, size, changedBytes, storedBytes] {
      bytes.append(littleEndian: Int64(value))
    }
    bytes.append(littleEndian: freezeWindowMilliseconds?.bitPattern ?? UInt64.max)
    bytes.append(littleEndian: UInt64(Consistency.allCases.firstIndex(of: consistency)!))
    let kind = fingerprint.flatMap { FingerprintKind(rawValue: $0) } ?? .xxh3
    bytes.append(littleEndian: UInt64(FingerprintKind.allCases.firstIndex(of: kind)!))
  }

  init?(row bytes: [UInt8], at offset: Int, collection: String) {
    func number(_ place: Int) -> Int { Int(bytes.littleEndian(at: offset + place, as: Int64.self)) }
    let level = number(64)
    let window: UInt64 = bytes.littleEndian(at: offset + 56)
    let milliseconds = window == .max ? nil : Double(bitPattern: window)
    guard 1..<(Int.max >> 8) ~= number(16), Consistency.allCases.indices.contains(level),
      FingerprintKind.allCases.indices.contains(number(72)),
      [32, 40, 48].allSatisfy({ number($0) >= 0 }), milliseconds.map(RestorePoint.isTime) ?? true
    else { return nil }
    self.collection = collection
    id = hexadecimal(bytes[offset..<(offset + PassID.byteCount)])
    diskCount = Int(bytes.littleEndian(at: offset + 12, as: UInt32.self))
    sequence = number(16)
    created = Timestamp(nanoseconds: number(24))
    size = number(32)
    changedBytes = number(40)
    storedBytes = number(48)
    freezeWindowMilliseconds = milliseconds
    consistency = Consistency.allCases[level]
    let kind = FingerprintKind.allCases[number(72)]
    fingerprint = kind == .xxh3 ? nil : kind.rawValue
  }
}
