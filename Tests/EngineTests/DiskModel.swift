import CLinux
import Engine
import Glibc
import TestSupport

/// A disk in a file, and what is in it, kept in memory beside.
///
/// Changes go to both; every restore is compared with what was kept.
final class DiskModel {
  let path: String
  private(set) var content: [UInt8]

  /// - Parameter size: bytes, a multiple of 512; all zeros at first.
  init(_ path: String, size: Int) throws {
    self.path = path
    content = [UInt8](repeating: 0, count: size)
    try Shell.run("truncate", "-s", "\(size)", path)
  }

  /// Writes bytes; what goes beyond the end is cut off.
  func write(_ bytes: [UInt8], at offset: Int) {
    let count = min(bytes.count, content.count - offset)
    guard count > 0 else { return }
    content.replaceSubrange(offset..<(offset + count), with: bytes[..<count])
    withFile { unsafe pwrite($0, bytes, count, off_t(offset)) }
  }

  /// Makes a hole.
  func punch(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<content.count)
    guard !range.isEmpty else { return }
    for index in range { content[index] = 0 }
    withFile { Int(clinux_punch_hole($0, UInt64(range.lowerBound), UInt64(range.count))) }
  }

  /// Makes the disk longer, with zeros, or shorter.
  func resize(to size: Int) {
    if size < content.count {
      content.removeLast(content.count - size)
    } else {
      content += [UInt8](repeating: 0, count: size - content.count)
    }
    withFile { Int(ftruncate($0, off_t(size))) }
  }

  private func withFile(_ body: (Int32) -> Int) {
    let file = unsafe open(path, O_RDWR | O_CLOEXEC)
    defer { close(file) }
    precondition(file >= 0 && body(file) >= 0, "\(path): \(errno)")
  }

  /// One random change, small or large, somewhere.
  func change(_ random: inout SeededGenerator) {
    switch Int.random(in: 0..<12, using: &random) {
    case 0: break
    case 1: punch(randomRange(&random))
    case 2:
      write(
        [UInt8](repeating: 0, count: randomRange(&random).count),
        at: randomRange(&random).lowerBound)
    case 3: resize(to: Int.random(in: 1...2048, using: &random) * 512)
    case 4: write(random.bytes(content.count), at: 0)
    case 5: punch(0..<content.count)
    case 6:
      let range = randomRange(&random)
      write((0..<range.count).map { UInt8(truncatingIfNeeded: $0 / 100) }, at: range.lowerBound)
    default:
      for _ in 0..<Int.random(in: 1...5, using: &random) {
        let range = randomRange(&random)
        write(random.bytes(min(range.count, 5000)), at: range.lowerBound)
      }
    }
  }

  private func randomRange(_ random: inout SeededGenerator) -> Range<Int> {
    let start = Int.random(in: 0..<content.count, using: &random)
    return start..<Int.random(in: start...content.count, using: &random)
  }
}

/// The bytes of a file.
func contents(_ path: String) throws -> [UInt8] {
  let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { throw Shell.Failure(description: "\(path): \(errno)") }
  defer { close(file) }
  var status = stat()
  unsafe fstat(file, &status)
  var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
  let size = bytes.count
  let count = unsafe pread(file, &bytes, size, 0)
  guard count == size else {
    throw Shell.Failure(description: "\(path): \(count) of \(size) bytes")
  }
  return bytes
}

extension PointReference {
  init(_ collection: String, id: String) { self = try! PointReference("\(collection)@\(id)") }
}
