import CLinux
import Glibc
import Platform
import TestSupport
import Testing

/// An engine that runs beside the tests: `freeze-driver`.
struct Driver {
  let process: RunningProcess
  let output: String

  var text: String { readText(output + ".out") ?? "" }
  private var lines: [Substring] { text.split(separator: "\n") }
  var isFrozen: Bool { lines.contains("frozen") }
  var guardian: Int32? {
    lines.first { $0.hasPrefix("ready ") }.flatMap { Int32($0.dropFirst(6)) }
  }
}

extension TestFileSystems {
  /// Starts an engine of its own; it writes what it has reached to a file.
  func driver(
    _ devices: [String], milliseconds: Int = 60_000, hook: String = "-", way: String = "hold",
    records: String? = nil
  ) throws -> Driver {
    let output = folder.file("driver-" + hexadecimal(randomBytes(4)))
    let program = parentDirectory(Needs.strobe) + "/freeze-driver"
    let process = try RunningProcess(
      [program, Needs.strobe, records ?? recordFolder, "\(milliseconds)", hook, way] + devices,
      output: output)
    return Driver(process: process, output: output)
  }

  /// Waits until nobody holds a record's lock any more: the last thread of a killed process may take its time.
  func awaitFreeRecords() throws {
    try waitUntil("records free") {
      try records.allSatisfy { name in
        let file = try FileDescriptor(opening: recordFolder + "/" + name, O_RDWR)
        return clinux_try_lock(file.number, 1) == 0
      }
    }
  }
}
