import Engine
import FoundationEssentials
import Glibc
import Platform
import Synchronization

/// Where text goes: results to standard output, everything else to standard error.
enum Console {
  private static let pending = Mutex<[UInt8]>([])

  /// One or more lines on standard output, held back until there is a block of them or ``flush()``.
  static func print(_ text: String) {
    let isFull = pending.withLock { pending in
      pending += Array(text.utf8)
      pending.append(UInt8(ascii: "\n"))
      return pending.count > 1 << 16
    }
    if isFull { flush() }
  }

  /// Writes out what `print` held back.
  ///
  /// - Returns: false when it couldn't be written, other than because the reader went away.
  @discardableResult
  static func flush() -> Bool {
    let bytes = pending.withLock { pending in
      defer { pending.removeAll() }
      return pending
    }
    let failure = write(bytes, to: STDOUT_FILENO)
    if failure == 0 || failure == EPIPE { return true }
    error(
      "standard output: \(unsafe String(cString: strerror(failure))); what the command did is done")
    return false
  }

  private static func write(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes {
        unsafe Glibc.write(descriptor, $0.baseAddress, $0.count)
      }
      if count < 0 {
        if errno == EINTR { continue }
        return errno
      }
      rest = rest.dropFirst(count)
    }
    return 0
  }

  /// One line on standard error, whatever names and paths are in it.
  static func error(_ text: String, prefix: String = "strobe: ") {
    write(prefix + visible(text) + "\n")
  }

  /// The text with what a terminal would act on, line breaks too, as escapes.
  static func visible(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator:
        result += "\\u{" + String(scalar.value, radix: 16) + "}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  static func warning(_ text: String) { error(text, prefix: "strobe: warning: ") }

  /// Text on standard error, at once.
  static func write(_ text: String) { _ = write(Array(text.utf8), to: STDERR_FILENO) }

  /// Writes a document with stable keys.
  static func print(json value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
  }
}
