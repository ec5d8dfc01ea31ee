import Glibc
import Platform
import TestSupport
import Testing

/// An NBD server of somebody else's, ended with the test: `qemu-nbd` or `nbdkit` on a socket of its own.
final class NBDServer {
  let socket: String
  private let process: RunningProcess
  private let output: String

  var uri: String { "nbd+unix:///?socket=\(socket)" }

  /// - Parameters:
  ///   - words: the program and its arguments; `SOCKET` stands for the socket.
  ///   - isNamed: whether it says by a file of that name instead that it listens.
  init(_ shop: Workshop, _ words: [String], isNamed: Bool = false) throws {
    let name = hexadecimal(randomBytes(3))
    socket = shop.file("\(name).sock")
    output = shop.file("server-\(name)")
    let socket = socket
    process = try RunningProcess(
      words.map { $0.replacing("SOCKET", with: socket) }, environment: [:], output: output)
    if isNamed {
      try waitUntil("listens") { process.hasEnded || readText(socket) == "\(process.id)" }
    } else {
      try process.waitUntilListening(at: socket)
    }
  }

  /// At a port of this host that nobody listened at.
  /// - Parameter words: the plugin and its parameters.
  static func onLoopback(_ shop: Workshop, _ words: String...) throws -> (NBDServer, port: String) {
    for _ in 0..<100 {
      let port = Int.random(in: 20_000..<30_000)
      let command = ["nbdkit", "--foreground", "--ip-addr", "127.0.0.1", "--port", "\(port)"]
      let server = try NBDServer(
        shop, command + ["--pidfile", "SOCKET"] + words, isNamed: true)
      if !server.process.hasEnded { return (server, "\(port)") }
    }
    throw Shell.Failure(description: "no free port")
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
