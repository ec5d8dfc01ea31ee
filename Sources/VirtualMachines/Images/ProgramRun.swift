import CLinux
import Glibc
package import Platform

/// A program of QEMU's that is run to its end, or in the background, with what it complains of kept.
package enum ProgramRun {
  private static let folders = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"]

  /// Where a program is.
  ///
  /// - Throws: `notFound` with the package that has it.
  package static func find(_ name: String, package: String) throws(StrobeError) -> String {
    var places = folders
    if let path = unsafe getenv("PATH") {
      places = unsafe String(cString: path).split(separator: ":").map(String.init) + places
    }
    for place in places where place.hasPrefix("/") {
      let path = "\(place)/\(name)"
      if unsafe access(path, X_OK) == 0 { return path }
    }
    throw StrobeError(
      .notFound, "the program \(name) is needed and not installed",
      advice: "install it: apt-get install \(package)")
  }

  /// Starts a program with nothing on its standard input and output.
  ///
  /// - Parameter inherited: what becomes its descriptors 3, 4, ….
  /// - Returns: the process, and the file that gets its standard error.
  package static func start(
    _ program: String, _ arguments: [String], output: OutputFile? = nil, inherited: [Int32] = []
  ) throws(StrobeError) -> (process: ChildProcess, complaints: OutputFile) {
    let null = try FileDescriptor(opening: "/dev/null", O_RDWR)
    let complaints = try OutputFile()
    let process = try ChildProcess(
      program, arguments: arguments, environment: environment,
      descriptors: [null.number, output?.number ?? null.number, complaints.number] + inherited)
    return (process, complaints)
  }

  /// Runs a program to its end, or to that of the thread that calls.
  ///
  /// - Throws: `system` with what it wrote to its standard error when its exit status isn't 0; `cancelled`.
  package static func run(
    _ program: String, _ arguments: [String], output: OutputFile? = nil, milliseconds: Int,
    stop: CancellationFlag
  ) throws(StrobeError) {
    let guarded = try find("setpriv", package: "util-linux")
    let (process, complaints) = try start(
      guarded, ["--pdeathsig", "KILL", "--", program] + arguments, output: output)
    let limit = monotonicMilliseconds() + milliseconds
    while !process.isOver {
      if stop.isCancelled || monotonicMilliseconds() > limit {
        process.signal(SIGKILL)
        while !process.isOver { usleep(1000) }
        _ = process.collect()
        try stop.check()
        throw .system(ETIMEDOUT, call: "run", object: program)
      }
      usleep(500)
    }
    let status = process.collect()
    guard status == 0 else {
      throw StrobeError(
        .system(errno: EIO, call: "run", object: program),
        "\(lastComponent(program)) failed: \(complaints.text)")
    }
  }

  /// What a program writes to its standard output, when its exit status is 0.
  static func output(
    _ program: String, _ arguments: [String], milliseconds: Int
  ) throws(StrobeError) -> [UInt8] {
    let output = try OutputFile()
    try run(
      program, arguments, output: output, milliseconds: milliseconds, stop: CancellationFlag())
    return output.bytes(limit: 4 << 20)
  }

  private static var environment: [String] {
    let names: [String] = ["PATH", "TMPDIR", "HOME", "LD_LIBRARY_PATH"]
    return names.compactMap { (name: String) -> String? in
      guard let value = unsafe getenv(name) else { return nil }
      return unsafe "\(name)=\(String(cString: value))"
    } + ["LC_ALL=C"]
  }
}

/// A file in memory for what a program writes.
package final class OutputFile: Sendable {
  private let file: FileDescriptor

  init() throws(StrobeError) {
    let number = try systemCall("memfd_create", "output") {
      unsafe clinux_memory_file("strobe-output")
    }
    file = FileDescriptor(owning: number, path: "output")
  }

  var number: Int32 { file.number }

  /// Its beginning.
  func bytes(limit: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: limit)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe pread(number, $0.baseAddress, limit, 0)
    }
    return Array(bytes.prefix(max(0, count)))
  }

  /// Its last lines, in one.
  package var text: String {
    var bytes = [UInt8](repeating: 0, count: 2048)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe pread(number, $0.baseAddress, 2048, 0)
    }
    let lines = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
    let kept = lines.suffix(3).map { $0.filter { $0.isASCII && ($0 >= " ") } }
    return kept.isEmpty ? "it says nothing of why" : kept.joined(separator: "; ")
  }
}
