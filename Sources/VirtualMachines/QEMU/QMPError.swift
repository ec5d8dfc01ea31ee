import Glibc
package import Platform

/// What QEMU says when it doesn't do what it was told.
package struct QMPError: Error, Sendable, Equatable {
  /// `GenericError`, `CommandNotFound`, `DeviceNotFound`, …
  package let kind: String
  package let text: String

  init(_ answer: JSONValue) {
    kind = answer["class"]?.text ?? "GenericError"
    // One that means harm may say anything.
    text = String((answer["desc"]?.text ?? "no reason given").prefix(500))
  }

  package var isCommandNotFound: Bool { kind == "CommandNotFound" }

  /// The error of the command that met it.
  package func failure(of command: String, at path: String) -> StrobeError {
    StrobeError(
      .system(errno: isCommandNotFound ? ENOSYS : EIO, call: command, object: path),
      "\(path): QEMU refuses \(command): \(text)")
  }
}
