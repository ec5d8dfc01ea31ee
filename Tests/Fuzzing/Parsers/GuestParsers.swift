import BlockDevices
import Glibc
import Platform

@testable import Engine
@testable import VirtualMachines

// What tells of guests: libvirt's XML, and where a user says that a disk is.

extension FuzzedParser {
  static let domain = FuzzedParser("domain") { input in
    guard let document = try? XMLElement(parsing: input.text) else { return }
    let type = Array("<!DOCTYPE".utf8)
    require(
      !input.bytes.indices.contains { input.bytes[$0...].starts(with: type) },
      "there is no document type")
    for disk in LibvirtDisk.all(in: document) {
      require(!disk.target.isEmpty, "a disk has a target")
    }
    _ = LibvirtAgent.isConnected(in: document)
    _ = BackupDocuments.socket(of: input.text)
  }

  static let locator = FuzzedParser("locator") { input in
    let locator = DiskLocator(input.text)
    require(DiskLocator(locator.text) == locator, "what is remembered leads to the same disk")
  }

  /// What a monitor says, in the pieces that the control byte makes: every line arrives as it was sent, and whatever
  /// QEMU might list is read or passed over.
  static let monitor = FuzzedParser("monitor") { input in
    let lines = received(input)
    var expected = input.bytes.split(
      separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false
    )
    .dropLast().map(Array.init)
    for index in expected.indices where expected[index].last == UInt8(ascii: "\r") {
      expected[index].removeLast()
    }
    require(lines == expected, "every line arrives as it was sent")
    for line in lines { read(line) }
  }

  /// The whole lines that come through a socket.
  private static func received(_ input: FuzzInput) -> [[UInt8]] {
    var pair: [Int32] = [0, 0]
    require(
      unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0, "there are sockets")
    let socket = LineSocket(inheriting: pair[0], path: "fuzzed", lineLimit: 1 << 20)
    var lines: [[UInt8]] = []
    var rest = input.bytes[...]
    let piece = 1 << Int(input.control >> 4)
    while true {
      if rest.isEmpty { shutdown(pair[1], Int32(SHUT_WR)) }
      let sent = rest.prefix(piece)
      rest = rest.dropFirst(piece)
      if !sent.isEmpty {
        let count = unsafe sent.withUnsafeBytes {
          unsafe send(pair[1], $0.baseAddress, $0.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        }
        require(count == sent.count, "the socket takes as much")
      }
      do throws(StrobeError) {
        // Half a line is kept.
        while let line = try socket.line(until: sent.isEmpty ? .max : monotonicMilliseconds()) {
          lines.append(line)
        }
      } catch {
        require(error.errno == ECONNRESET && sent.isEmpty, "the end is seen, and at the end")
        close(pair[1])
        return lines
      }
    }
  }

  private static func read(_ line: [UInt8]) {
    guard let message = JSONValue(decoding: line) else { return }
    let again = JSONValue(decoding: message.line.utf8)
    require(again.map { isSame(message, $0) } == true, "a message reads back")
    require(!message.line.utf8.contains(UInt8(ascii: "\n")), "a message is one line")
    if let error = message["error"] { require(QMPError(error).text.count <= 500, "words are few") }
    for entry in message["return"]?.elements ?? [message] {
      if let node = BlockNode(entry) {
        require(
          node.reopenOptions(above: "x")["node-name"]?.text == node.name, "a node keeps its name")
      }
      _ = (AttachedDevice(entry), BlockExport(entry), BlockJob(entry), DirtyBitmap(entry))
    }
  }
}
