import Glibc
import VirtualMachines

/// Looks at what a QMP monitor has said and nobody has read yet, and leaves it there for whoever reads it.
///
/// See recv(2), MSG_PEEK. It sees everything only while nobody reads.
struct MonitorPeek {
  private let descriptor: Int32
  /// How much was unread when it was made.
  private let mark: Int

  /// Usually there are some hundred bytes; at most what the kernel keeps for a socket (net.core.wmem_max).
  private static let rooms = [64 << 10, 1 << 20, 16 << 20]

  /// Brackets of a message: what the guardian looks for has fewer than ten. What the engine had asked for may have
  /// thousands, and is passed over.
  static let bracketLimit = 64

  init(_ descriptor: Int32) {
    self.descriptor = descriptor
    mark = Self.unread(descriptor)?.count ?? 0
  }

  /// - Returns: the messages since; nil when the other end is gone and everything was read.
  func messages() -> [JSONValue]? {
    guard let bytes = Self.unread(descriptor) else { return nil }
    return bytes.dropFirst(mark).split(separator: UInt8(ascii: "\n")).compactMap {
      JSONValue(
        decoding: $0.last == UInt8(ascii: "\r") ? $0.dropLast() : $0,
        bracketLimit: Self.bracketLimit)
    }
  }

  private static func unread(_ descriptor: Int32) -> [UInt8]? {
    for room in rooms {
      guard let bytes = unread(descriptor, room) else { return nil }
      if bytes.count < room || room == rooms.last { return bytes }
    }
    return nil
  }

  private static func unread(_ descriptor: Int32, _ room: Int) -> [UInt8]? {
    var isGone = false
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
      let flags = Int32(MSG_PEEK | MSG_DONTWAIT)
      let got = unsafe recv(descriptor, buffer.baseAddress, buffer.count, flags)
      isGone = got == 0 || got < 0 && errno != EAGAIN && errno != EINTR
      count = max(0, got)
    }
    return isGone ? nil : bytes
  }
}
