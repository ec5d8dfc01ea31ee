import Glibc
import Platform

/// Runs other programs.
package enum Shell {
  package struct Result: Sendable {
    /// The exit status, or 128 + the signal that ended it.
    package let status: Int32
    package let output: String
    package let errors: String
  }

  package struct Failure: Error, CustomStringConvertible {
    package let description: String

    package init(description: String) { self.description = description }
  }

  /// Runs a program to its end and returns its standard output.
  /// - Throws: when it can't be started or its exit status isn't 0.
  @discardableResult
  package static func run(_ words: String...) throws -> String {
    let result = try capture(words)
    guard result.status == 0 else {
      throw Failure(
        description: "\(words.joined(separator: " ")): \(result.status): \(result.errors)")
    }
    return result.output
  }

  /// Runs a program to its end, whatever its status. The environment is this process's with
  /// `environment` on top.
  package static func capture(
    _ words: [String], environment: [String: String] = [:]
  ) throws -> Result {
    let folder = "/tmp/strobe-test-" + hexadecimal(randomBytes(8))
    defer {
      unsafe unlink(folder + ".out")
      unsafe unlink(folder + ".err")
    }
    let process = try RunningProcess(words, environment: environment, output: folder)
    let status = process.wait()
    let output = (try? readFile(folder + ".out", limit: 1 << 30)) ?? []
    let errors = (try? readFile(folder + ".err", limit: 1 << 30)) ?? []
    return Result(
      status: status, output: String(decoding: output, as: UTF8.self),
      errors: String(decoding: errors, as: UTF8.self))
  }

  package static func exists(_ program: String) -> Bool {
    ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"].contains {
      unsafe access($0 + program, X_OK) == 0
    }
  }
}

/// A program that was started and may be signalled; only this very process, by its id.
package final class RunningProcess: @unchecked Sendable {
  // Sendable: used by one test at a time.
  package let id: Int32
  private var ended: Int32?

  /// - Parameter output: standard output goes to `output.out`, standard error to `output.err`; nil:
  ///   both are thrown away.
  package init(
    _ words: [String], environment: [String: String] = [:], output: String? = nil
  ) throws {
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    let flags = O_WRONLY | O_CREAT | O_TRUNC
    unsafe posix_spawn_file_actions_addopen(
      &actions, 1, output.map { $0 + ".out" } ?? "/dev/null", flags, 0o600)
    unsafe posix_spawn_file_actions_addopen(
      &actions, 2, output.map { $0 + ".err" } ?? "/dev/null", flags, 0o600)
    var variables: [String] = []
    var inherited = unsafe environ
    while let entry = unsafe inherited.pointee {
      let text = unsafe String(cString: entry)
      let name = text.prefix { $0 != "=" }
      if environment[String(name)] == nil { variables.append(text) }
      unsafe inherited += 1
    }
    variables += environment.map { "\($0.key)=\($0.value)" }
    var id: pid_t = 0
    var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
    var values = unsafe variables.map { unsafe strdup($0) } + [nil]
    // A test's thread may block signals, which the program would inherit.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    let result = unsafe posix_spawnp(&id, words[0], &actions, &attributes, &arguments, &values)
    for index in unsafe arguments.indices { unsafe free(arguments[index]) }
    for index in unsafe values.indices { unsafe free(values[index]) }
    guard result == 0 else {
      throw Shell.Failure(description: "can't start \(words[0]): \(result)")
    }
    self.id = id
  }

  deinit {
    if ended == nil {
      kill(id, SIGKILL)
      _ = wait()
    }
  }

  package func signal(_ number: Int32) { if ended == nil { kill(id, number) } }

  /// Waits for the end.
  /// - Returns: the exit status, or 128 + the signal.
  @discardableResult
  package func wait() -> Int32 {
    if let ended { return ended }
    var status: Int32 = 0
    while unsafe waitpid(id, &status, 0) == -1 && errno == EINTR {}
    let result = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    ended = result
    return result
  }
}
