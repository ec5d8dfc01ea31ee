import FoundationEssentials
package import Platform

// A document: JSON that a person can read, whose last member is a checksum of all bytes before it.
//
//   { "format": 1, …,
//     "checksum": "xxh3-64:0123456789abcdef"
//   }

package enum Document {
  /// The version that this program writes unless a document has what only a newer one has.
  package static let format = 1
  /// The newest that it reads. 2: fingerprints of another kind than XXH3. 3: disks of a guest.
  package static let newestFormat = 3
  package static let sizeLimit = 64 << 20

  private static let checksumLead = ",\n  \"checksum\" : \"xxh3-64:"
  private static let checksumTail = "\"\n}\n"

  package static func encode(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(value) else {
      preconditionFailure("a document is encodable")
    }
    // "}" and the line break before it make way for the checksum.
    var bytes = Array(data)
    precondition(bytes.suffix(2).elementsEqual("\n}".utf8), "a document has members")
    bytes.removeLast(2)
    let sum = checksum64(bytes)
    bytes += Array((checksumLead + hexadecimal(sum) + checksumTail).utf8)
    return bytes
  }

  private struct Version: Decodable { let format: Int }

  /// - Throws: `damaged` when the checksum doesn't hold, `newerVersion` when it was written by a newer
  ///   Strobe.
  package static func decode<Value: Decodable>(
    _: Value.Type, _ bytes: [UInt8], name: String
  ) throws(StrobeError) -> Value {
    let end = checksumLead.utf8.count + 16 + checksumTail.utf8.count
    guard bytes.count > end else {
      throw .damaged(name, expected: "a document with a checksum", found: "\(bytes.count) bytes")
    }
    let body = Array(bytes.dropLast(end))
    let expected = checksumLead + hexadecimal(checksum64(body)) + checksumTail
    guard bytes.suffix(end).elementsEqual(expected.utf8) else {
      let tail = String(decoding: bytes.suffix(end), as: UTF8.self)
      let found =
        tail.hasPrefix(checksumLead)
        ? String(tail.dropFirst(checksumLead.count).prefix(16)) : "no checksum"
      throw .damaged(name, expected: "checksum \(hexadecimal(checksum64(body)))", found: found)
    }
    let data = Data(bytes)
    guard let version = try? JSONDecoder().decode(Version.self, from: data), version.format >= 1
    else {
      throw .damaged(name, expected: "a document with a format", found: "none")
    }
    guard version.format <= newestFormat else {
      throw StrobeError(
        .newerVersion,
        "\(name) has format \(version.format), this Strobe reads up to \(newestFormat)",
        advice: "use a newer Strobe")
    }
    do {
      return try JSONDecoder().decode(Value.self, from: data)
    } catch {
      throw .damaged(name, expected: "the fields of format \(version.format)", found: "\(error)")
    }
  }
}
