import Glibc
import Platform
import TestSupport
import VirtualMachines

/// A monitor that says what a test wants it to say, on a thread of its own, which ends with its client.
final class FakeMonitor {
  let path: String
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let listener: Int32

  static let greeting =
    #"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#

  /// - Parameter serve: talks to the one client.
  init(_ serve: @escaping @Sendable (borrowing Client) -> Void) throws {
    path = folder.file("monitor")
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    self.listener = listener
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let bound = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard bound == 0, listen(listener, 1) == 0 else {
      throw Shell.Failure(description: "can't listen at \(path)")
    }
    let join = inBackground {
      // Nobody waits for it.
      pthread_detach(pthread_self())
      let number = accept(listener, nil, nil)
      if number >= 0 { serve(Client(number: number)) }
    }
    guard join != nil else { throw Shell.Failure(description: "no thread") }
  }

  deinit {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
  }

  /// The client's connection, closed when `serve` returns.
  struct Client: ~Copyable {
    let number: Int32

    func say(_ text: String) {
      let bytes = Array(text.utf8)
      unsafe bytes.withUnsafeBytes {
        unsafe _ = send(number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
    }

    func sayLine(_ text: String) { say(text + "\r\n") }

    /// The client's next command; nil when it is gone.
    func hear() -> JSONValue? {
      var line: [UInt8] = []
      var byte: UInt8 = 0
      while unsafe recv(number, &byte, 1, 0) == 1 {
        if byte == UInt8(ascii: "\n") { return JSONValue(decoding: line) }
        line.append(byte)
      }
      return nil
    }

    /// Greets, and answers `qmp_capabilities`.
    func greet() {
      sayLine(FakeMonitor.greeting)
      answer(hear())
    }

    func answer(_ command: JSONValue?, _ value: JSONValue = [:]) {
      guard let id = command?["id"] else { return }
      sayLine((["return": value, "id": id] as JSONValue).line)
    }

    deinit { Glibc.close(number) }
  }
}
