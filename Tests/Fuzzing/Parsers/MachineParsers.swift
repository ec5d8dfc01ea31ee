import BlockDevices
import Platform
import VirtualMachines

@testable import Quiescing

// What the machine and its processes say: the mount table, records of freezes, the guardian's orders.

extension FuzzedParser {
  static let freezeRecord = FuzzedParser("freeze-record") { input in
    scratch.fill(input.bytes)
    _ = FreezeRecord.holder(scratch.path)
    guard let read = FreezeRecordContent(reading: scratch.path) else { return }
    _ = read.isOfThisBoot
    scratch.fill(Array(read.text.utf8))
    guard let again = FreezeRecordContent(reading: scratch.path) else {
      fatalError("doesn't hold: a record that was read can be written and read")
    }
    require(
      again.place == read.place && again.kind == read.kind && again.process == read.process
        && again.boot == read.boot, "a record reads back")
    // Of bytes, for characters that look the same are not the same path.
    let lead = Array("\n\(read.kind.word) ".utf8)
    let start = input.bytes.indices.first { input.bytes[$0...].starts(with: lead) }
    guard let start, String(validating: input.bytes, as: UTF8.self) != nil else { return }
    require(
      Array(read.place.utf8) == Array(input.bytes[(start + lead.count)...].dropLast()),
      "a mount point or socket is read byte by byte")
  }

  private static let scratch = ScratchFile()

  static let guardian = FuzzedParser("guardian") { input in
    if let read = GuardianConfiguration(decoding: input.bytes), let bytes = try? read.encoded() {
      require(GuardianConfiguration(decoding: bytes) == read, "a configuration reads back")
    }
    // What is written is read as it was.
    let parts = input.bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    let hook = HookCommand(
      program: parts.first ?? "", environment: ["PATH": parts.last ?? ""], limitMilliseconds: 1,
      retries: 2)
    let kinds: [HoldKind] = [
      .mount, .agent(socketPath: parts.last ?? "", timeoutMilliseconds: input.bytes.count),
      .processors(socketPath: parts.first ?? ""),
    ]
    let places = zip(parts, kinds).map { part, kind in
      GuardianConfiguration.Place(recordPath: part, isStale: part.isEmpty, kind: kind)
    }
    let written = GuardianConfiguration(
      places: places, maxFreezeMilliseconds: 3, postThaw: hook)
    guard let encoded = try? written.encoded() else { return }
    require(GuardianConfiguration(decoding: encoded) == written, "orders arrive as they were given")
  }

  static let agentReply = FuzzedParser("agent-reply") { input in
    guard let reply = AgentReply(line: input.bytes) else { return }
    let value = Self.value(of: reply)
    let line = Array(value.line.utf8)
    for start in [[], input.bytes + [0xff]] {
      let again = AgentReply(line: start + line).map { Self.value(of: $0) }
      require(again.map { isSame(value, $0) } == true, "a reply reads back, whatever precedes it")
    }
  }

  private static func value(of reply: AgentReply) -> JSONValue {
    switch reply {
    case .returned(let value): ["return": value]
    case .failed(let kind, let text): ["error": ["class": .string(kind), "desc": .string(text)]]
    }
  }

  /// A fraction beyond 53 bits is none any more once it was written.
  static func isSame(_ one: JSONValue, _ other: JSONValue) -> Bool {
    switch (one, other) {
    case (.number(let number), .integer(let whole)): number == Double(whole)
    case (.array(let one), .array(let other)):
      one.count == other.count && zip(one, other).allSatisfy(isSame)
    case (.object(let one), .object(let other)):
      one.count == other.count
        && one.allSatisfy { key, value in other[key].map { isSame(value, $0) } ?? false }
    default: one == other
    }
  }

  static let mountTable = FuzzedParser("mount-table") { input in
    let mounts = MountTable.parse(input.text)
    let lines = mounts.map { mount in
      "\(mount.id) 1 \(mount.device.major):\(mount.device.minor) / \(escaped(mount.mountPoint)) rw - "
        + "\(mount.fileSystem) \(escaped(mount.source)) \(options(mount))"
    }
    require(
      MountTable.parse(lines.joined(separator: "\n")) == mounts, "a mount table reads back")
  }

  private static func options(_ mount: Mount) -> String {
    let upper = mount.upperDirectory.map { ",upperdir=" + escaped($0) } ?? ""
    return (mount.isWritable ? "rw" : "ro") + upper
  }

  /// As the kernel writes it, and commas too. See mangle() in the kernel's fs/proc_namespace.c.
  private static func escaped(_ text: String) -> String {
    var result: [UInt8] = []
    for byte in text.utf8 {
      if [UInt8](" \t\n\\#,".utf8).contains(byte) {
        let digits = String(byte, radix: 8)
        result += Array(("\\" + String(repeating: "0", count: 3 - digits.count) + digits).utf8)
      } else {
        result.append(byte)
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
