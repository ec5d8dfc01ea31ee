import Glibc

/// Bytes as a file in memory, for parsers that read a path. It has no name, so nothing stays of it.
struct ScratchFile: Sendable {
  private let descriptor: Int32
  var path: String { "/proc/self/fd/\(descriptor)" }

  init() {
    var template = Array("/dev/shm/strobe-test-fuzzing-XXXXXX".utf8CString)
    descriptor = unsafe template.withUnsafeMutableBufferPointer { name in
      let descriptor = unsafe mkstemp(name.baseAddress!)
      unsafe unlink(name.baseAddress!)
      return descriptor
    }
    require(descriptor >= 0, "there are files in memory")
  }

  func fill(_ bytes: [UInt8]) {
    require(ftruncate(descriptor, 0) == 0, "a file in memory can be emptied")
    let written = unsafe bytes.withUnsafeBytes {
      unsafe pwrite(descriptor, $0.baseAddress, $0.count, 0)
    }
    require(written == bytes.count, "a file in memory takes \(bytes.count) bytes")
  }
}
