/// One thing that reads bytes which Strobe didn't necessarily write: what is fed to it, and what must hold.
///
/// An input is a control byte and then the bytes to parse. Bit 0 of the control byte asks for right checksums:
/// the parser then computes every checksum of the input anew before it parses, so that what lies behind the
/// checksums is reached as well. The other bits are each parser's own.
package struct FuzzedParser: Sendable {
  package let name: String
  private let body: @Sendable (FuzzInput) -> Void

  init(_ name: String, _ body: @escaping @Sendable (FuzzInput) -> Void) {
    self.name = name
    self.body = body
  }

  /// Parses one input. Stops the program when something doesn't hold.
  package func run(_ input: [UInt8]) { body(FuzzInput(input)) }

  package static let all: [FuzzedParser] = [
    .configuration, .collection, .point, .layer, .chain, .segment, .headTable, .pointIndex, .spool,
    .repairs, .verification, .journal, .protection, .freezeRecord, .guardian, .arguments, .values,
    .mountTable, .agentReply, .domain, .locator, .monitor,
  ]
}

/// What a fuzzer made up.
struct FuzzInput {
  let control: UInt8
  var bytes: [UInt8]

  init(_ input: [UInt8]) {
    control = input.first ?? 0
    bytes = Array(input.dropFirst())
  }

  var repairsChecksums: Bool { control & 1 != 0 }
  var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// Stops the program unless a property holds.
func require(_ condition: @autoclosure () -> Bool, _ property: String) {
  if !condition() { fatalError("doesn't hold: \(property)") }
}
