import CLinux

/// The restore point that a tracker counts from.
package struct TrackerBase: Equatable, Sendable {
  /// 12 bytes.
  package let collection: [UInt8]
  /// 12 bytes.
  package let point: [UInt8]
  /// The disk's name in the collection, at most ``longestName`` bytes.
  package let disk: String

  package static let longestName = 128
  static let idLength = 12
  /// Bytes of the record in a tracker's header: both ids, the name's length, the name.
  static let recordLength = 160

  package init(collection: [UInt8], point: [UInt8], disk: String) {
    precondition(collection.count == Self.idLength && point.count == Self.idLength)
    precondition(disk.utf8.count <= Self.longestName)
    self.collection = collection
    self.point = point
    self.disk = disk
  }

  var record: [UInt8] {
    var bytes = collection + point + [UInt8(disk.utf8.count)] + Array(disk.utf8)
    bytes += Array(repeating: 0, count: Self.recordLength - bytes.count)
    return bytes
  }

  init?(record: [UInt8]) {
    let nameStart = 2 * Self.idLength + 1
    let length = Int(record[nameStart - 1])
    guard length <= Self.longestName else { return nil }
    collection = Array(record[..<Self.idLength])
    point = Array(record[Self.idLength..<2 * Self.idLength])
    disk = String(decoding: record[nameStart..<nameStart + length], as: UTF8.self)
  }

  /// What makes a record valid: never 0.
  static func seal(_ record: [UInt8]) -> UInt64 {
    let hash = unsafe record.withUnsafeBytes { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
    return hash | 1
  }
}
