import CBPF
import CLinux
import Glibc
import Platform
import Synchronization

/// A descriptor of an eBPF map, program or link; closed when nobody holds it any more.
final class KernelObject: Sendable {
  let number: Int32

  init(owning number: Int32) { self.number = number }

  /// - Returns: nil when nothing has that name.
  init?(pinned path: String) throws(StrobeError) {
    let number = unsafe bpf_obj_get(path)
    if number == -ENOENT { return nil }
    guard number >= 0 else { throw .system(-number, call: "bpf_obj_get", object: path) }
    self.number = number
  }

  deinit { close(number) }

  func pin(_ path: String) throws(StrobeError) {
    try bpfCall("bpf_obj_pin", path) { unsafe bpf_obj_pin(number, path) }
  }
}

/// Runs a function of libbpf, which returns the negative `errno`.
@discardableResult
func bpfCall(
  _ call: StaticString, _ object: @autoclosure () -> String, _ body: () -> Int32
) throws(StrobeError) -> Int32 {
  let result = body()
  guard result < 0 else { return result }
  throw .system(-result, call: "\(call)", object: object())
}

// What the kernel tells. Methods, because only the object keeps its descriptor open.
extension KernelObject {
  /// The kernel's numbers of a link and of the program that it attaches.
  func linkInfo() throws(StrobeError) -> (id: UInt32, program: UInt32) {
    var info = bpf_link_info()
    var size = UInt32(MemoryLayout<bpf_link_info>.size)
    try bpfCall("bpf_link_get_info", "link") {
      unsafe bpf_obj_get_info_by_fd(number, &info, &size)
    }
    return (info.id, info.prog_id)
  }

  func mapInfo() throws(StrobeError) -> (id: UInt32, valueSize: Int, entries: Int) {
    var info = bpf_map_info()
    var size = UInt32(MemoryLayout<bpf_map_info>.size)
    try bpfCall("bpf_map_get_info", "map") {
      unsafe bpf_obj_get_info_by_fd(number, &info, &size)
    }
    return (info.id, Int(info.value_size), Int(info.max_entries))
  }

  /// How often the kernel skipped this program because it was running on the same processor already.
  var skips: UInt64? {
    var info = bpf_prog_info()
    var size = UInt32(MemoryLayout<bpf_prog_info>.size)
    guard unsafe bpf_obj_get_info_by_fd(number, &info, &size) == 0 else { return nil }
    return info.recursion_misses
  }
}

/// What libbpf would print on standard error: kept, because it says more than `errno`.
enum LibraryMessages {
  private static let text = Mutex("")
  private static let serial = Mutex(())

  /// Runs `body` alone, with libbpf's messages captured.
  static func capturing<Result>(
    _ body: () throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    // A lock's closure throws no typed errors: the result crosses as a value.
    let result: Swift.Result<Result, StrobeError> = serial.withLock { _ in
      text.withLock { $0 = "" }
      unsafe libbpf_set_print { level, format, arguments in
        // Optional on some processors only.
        guard level == LIBBPF_WARN, let format = unsafe format,
          let arguments = unsafe arguments as CVaListPointer?
        else { return 0 }
        var line = [CChar](repeating: 0, count: 512)
        unsafe vsnprintf(&line, line.count, format, arguments)
        let bytes = line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        LibraryMessages.keep(String(decoding: bytes, as: UTF8.self))
        return 0
      }
      do throws(StrobeError) { return .success(try body()) } catch { return .failure(error) }
    }
    return try result.get()
  }

  /// The first is the cause; what follows are its consequences and the verifier's log.
  private static func keep(_ line: String) {
    let first = line.split(separator: "\n").first ?? ""
    text.withLock { text in
      if text.isEmpty { text = String(first.hasPrefix("libbpf: ") ? first.dropFirst(8) : first) }
    }
  }

  /// The first message of the last ``capturing(_:)``, or an empty text.
  static var last: String { text.withLock { $0 } }
}
