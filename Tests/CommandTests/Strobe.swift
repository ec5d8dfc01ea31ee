import Foundation
import Glibc
import Platform
import TestSupport
import Testing

/// The built program, used with one repository.
struct Strobe: Sendable {
  /// Beside the test bundle: `swift test` builds it, because these tests depend on it.
  static let program: String = {
    let bundle = resolvedPath("/proc/self/exe") ?? CommandLine.arguments[0]
    return parentDirectory(bundle) + "/strobe"
  }()

  let repository: String
  /// A folder of the BPF file system for the trackers of one test, so that tests don't see each other's.
  var trackerFolder = "/sys/fs/bpf/strobe-test"

  /// Runs a command to its end.
  func callAsFunction(_ words: String...) throws -> Shell.Result { try run(words) }

  func run(_ words: [String]) throws -> Shell.Result {
    try Shell.capture([Self.program] + words, environment: environment)
  }

  /// Starts a command; its output goes to `output.out` and `output.err`.
  func start(_ words: [String], output: String? = nil) throws -> RunningProcess {
    let program = words[0] == "nohup" ? [] : [Self.program]
    return try RunningProcess(program + words, environment: environment, output: output)
  }

  /// Runs a line of shell in which `strobe` is this program.
  func shell(_ line: String) throws -> Shell.Result {
    try Shell.capture(
      ["bash", "-c", "strobe() { \"$STROBE_PROGRAM\" \"$@\"; }; " + line],
      environment: environment.merging(["STROBE_PROGRAM": Self.program]) { $1 })
  }

  var environment: [String: String] {
    ["STROBE_REPOSITORY": repository, "STROBE_BPF_ROOT": trackerFolder, "LC_ALL": "C"]
  }
}

extension Shell.Result {
  /// Checks the exit status, and that the messages say all of `words`.
  @discardableResult
  func expect(
    _ status: Int32, says words: String..., at location: SourceLocation = #_sourceLocation
  ) -> Shell.Result {
    #expect(self.status == status, "\(errors)\(output)", sourceLocation: location)
    for word in words where !word.isEmpty {
      #expect(errors.contains(word), "\(errors)", sourceLocation: location)
    }
    if status == 1 || status == 2 {
      #expect(
        errors.split(separator: "\n").allSatisfy { $0.hasPrefix("strobe: ") }, "\(errors)",
        sourceLocation: location)
    }
    if status == 0 { #expect(errors == "", sourceLocation: location) }
    return self
  }

  /// Checks that standard output says all of `words`.
  @discardableResult
  func prints(_ words: String..., at location: SourceLocation = #_sourceLocation) -> Shell.Result {
    for word in words { #expect(output.contains(word), "\(output)", sourceLocation: location) }
    return self
  }

  /// Standard output as one JSON document.
  func json(at location: SourceLocation = #_sourceLocation) throws -> JSON {
    if let value = try? JSONSerialization.jsonObject(with: Data(output.utf8)) { return JSON(value) }
    Issue.record("no JSON: \(output)\(errors)", sourceLocation: location)
    return JSON(nil)
  }
}

/// A parsed JSON value; what isn't there is nil.
struct JSON {
  private let value: Any?

  init(_ value: Any?) { self.value = value }

  subscript(key: String) -> JSON { JSON((value as? [String: Any])?[key]) }
  subscript(index: Int) -> JSON {
    guard let list = value as? [Any], list.indices.contains(index) else { return JSON(nil) }
    return JSON(list[index])
  }

  var text: String? { value as? String }
  var number: Int? { (value as? NSNumber)?.intValue }
  var flag: Bool? { (value as? NSNumber)?.boolValue }
  var list: [JSON] { (value as? [Any] ?? []).map(JSON.init) }
  var keys: Set<String> { Set((value as? [String: Any] ?? [:]).keys) }
}
