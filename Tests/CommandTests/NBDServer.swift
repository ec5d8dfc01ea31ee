import Glibc
import Platform
import TestSupport

/// An NBD server of somebody else's, ended with the test: `qemu-nbd` or `nbdkit` on a socket of its own.
final class NBDServer {
  let socket: String
  private let process: RunningProcess
  private let output: String

  var uri: String { "nbd+unix:///?socket=\(socket)" }

  /// - Parameter words: the program and its arguments; `SOCKET` stands for the socket.
  init(_ shop: Workshop, _ words: [String]) throws {
    let name = hexadecimal(randomBytes(3))
    socket = shop.file("\(name).sock")
    output = shop.file("server-\(name)")
    let socket = socket
    process = try RunningProcess(
      words.map { $0.replacing("SOCKET", with: socket) }, environment: [:], output: output)
    for _ in 0..<2000 where unsafe access(socket, F_OK) != 0 { usleep(5000) }
  }

  /// Of an image file.
  static func qemu(
    _ shop: Workshop, _ path: String, format: String = "raw", _ words: String...
  ) throws -> NBDServer {
    try NBDServer(
      shop, ["qemu-nbd", "--persistent", "--format", format, "--socket=SOCKET"] + words + [path])
  }

  /// - Parameter words: what follows the socket: filters, the plugin and its parameters.
  static func nbdkit(_ shop: Workshop, _ words: String...) throws -> NBDServer {
    try NBDServer(shop, ["nbdkit", "--foreground", "--unix", "SOCKET"] + words)
  }

  func end() {
    process.signal(SIGKILL)
    process.wait()
  }

  deinit { end() }
}
