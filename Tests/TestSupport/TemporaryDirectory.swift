import Glibc
import Platform

/// A directory of a test, removed with everything in it when the test lets go of it.
///
/// `scripts/test` removes what a killed test left: everything that begins with `prefix`.
package final class TemporaryDirectory: Sendable {
  package static let prefix = "/tmp/strobe-test-"

  package let path: String

  /// - Parameter base: where it is made; `/dev/shm` keeps it in memory.
  package init(in base: String? = nil) {
    let name = base.map { $0 + "/strobe-test-" } ?? Self.prefix
    path = name + hexadecimal(randomBytes(8))
    guard unsafe mkdir(path, 0o700) == 0 else { fatalError("can't make \(path)") }
  }

  deinit { _ = try? Shell.run("rm", "-rf", "--one-file-system", path) }

  package func file(_ name: String) -> String { path + "/" + name }
}
