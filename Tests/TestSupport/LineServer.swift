import Glibc
import Platform
import Synchronization

/// A server on a UNIX socket that takes one client at a time and answers lines: what a guest agent or a monitor looks
/// like from outside.
package final class LineServer: Sendable {
  /// Whoever is connected.
  package struct Client: Sendable {
    let descriptor: Int32

    package func send(_ bytes: [UInt8]) {
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = unsafe rest.withUnsafeBytes {
          unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        if count <= 0 { return }
        rest = rest.dropFirst(count)
      }
    }

    package func send(_ text: String) { send(Array(text.utf8)) }

    /// Hangs up.
    package func end() { shutdown(descriptor, Int32(SHUT_RDWR)) }
  }

  package let path: String
  private let listener: Int32
  private let isStopped = Atomic<Bool>(false)
  private let thread = Mutex<End?>(nil)

  /// The wait for the thread's end.
  private struct End: @unchecked Sendable {
    // Sendable: pthread_join(3) may be called on any thread, and is called once.
    let wait: () -> Void
  }

  /// - Parameters:
  ///   - greet: called for every client first.
  ///   - answer: called with every line, without its end.
  package init(
    _ path: String, greet: @escaping @Sendable (Client) -> Void = { _ in },
    answer: @escaping @Sendable ([UInt8], Client) -> Void
  ) throws {
    self.path = path
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    listener = descriptor
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, listen(descriptor, 8) == 0 else {
      throw Shell.Failure(description: "can't listen at \(path): \(errno)")
    }
    let wait = inBackground { [self] in
      while let client = accepted() {
        greet(client)
        serve(client, answer)
        close(client.descriptor)
      }
    }
    guard let wait else { throw Shell.Failure(description: "no thread for \(path)") }
    thread.withLock { [end = End(wait: wait)] in $0 = end }
  }

  /// Ends it; nobody listens any more. May be called again.
  package func stop() {
    guard !isStopped.exchange(true, ordering: .sequentiallyConsistent) else { return }
    let end = thread.withLock { $0 }
    end?.wait()
    close(listener)
    _ = unsafe unlink(path)
  }

  private func isReady(_ descriptor: Int32) -> Bool {
    while !isStopped.load(ordering: .sequentiallyConsistent) {
      var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      if unsafe poll(&request, 1, 10) == 1 { return true }
    }
    return false
  }

  private func accepted() -> Client? {
    guard isReady(listener) else { return nil }
    let descriptor = accept(listener, nil, nil)
    return descriptor < 0 ? nil : Client(descriptor: descriptor)
  }

  private func serve(_ client: Client, _ answer: ([UInt8], Client) -> Void) {
    var buffer: [UInt8] = []
    while isReady(client.descriptor) {
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = unsafe recv(client.descriptor, &bytes, bytes.count, 0)
      if count <= 0 { return }
      buffer += bytes[..<count]
      while let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
        let line = Array(buffer[..<end])
        buffer.removeSubrange(...end)
        answer(line, client)
      }
    }
  }
}
