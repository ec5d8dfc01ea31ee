import CLinux
import Glibc
import TestSupport

/// A disk in a file, and what is in it, kept in memory beside.
///
/// Changes go to both; every restore is compared with what was kept.
final class SourceDisk {
  /// Bytes; disks of simulated machines are small, so that ten thousand worlds fit into a night.
  static let sizeLimit = 2 << 20

  let name: String
  let path: String
  private(set) var content: [UInt8]
  /// Counts the files that had the name: what the engine takes for another disk has another number.
  private(set) var generation = 0

  /// - Parameter size: bytes, a multiple of 512; all zeros at first.
  init(_ name: String, path: String, size: Int) {
    self.name = name
    self.path = path
    content = [UInt8](repeating: 0, count: size)
    replaceFile()
  }

  /// Writes bytes; what goes beyond the end is cut off.
  func write(_ bytes: some Collection<UInt8>, at offset: Int) {
    let bytes = Array(bytes.prefix(max(0, content.count - offset)))
    guard !bytes.isEmpty else { return }
    content.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    withFile { unsafe pwrite($0, bytes, bytes.count, off_t(offset)) }
  }

  /// Makes a hole.
  func punch(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<content.count)
    guard !range.isEmpty else { return }
    content.replaceSubrange(range, with: repeatElement(0, count: range.count))
    withFile { Int(clinux_punch_hole($0, UInt64(range.lowerBound), UInt64(range.count))) }
  }

  /// Makes the disk longer, with zeros, or shorter.
  func resize(to size: Int) {
    if size < content.count {
      content.removeLast(content.count - size)
    } else {
      content += repeatElement(0, count: size - content.count)
    }
    withFile { Int(ftruncate($0, off_t(size))) }
  }

  /// Another file takes the name: another disk in the place of this one.
  func replace(with content: [UInt8]) {
    self.content = content
    replaceFile()
  }

  /// Something else wrote the file: a restore over it.
  func becomes(_ content: [UInt8]) {
    self.content = content
    generation += 1
  }

  /// A byte of the file changes and nobody is told: what a sabotage does.
  func changeBehindTheBack(at offset: Int) {
    let byte = [content[offset] ^ 0x55]
    withFile { unsafe pwrite($0, byte, 1, off_t(offset)) }
  }

  private func replaceFile() {
    generation += 1
    let new = path + ".new"
    let file = unsafe open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    precondition(file >= 0, "\(new): \(errno)")
    precondition(ftruncate(file, off_t(content.count)) == 0)
    // Zeros stay holes.
    for start in stride(from: 0, to: content.count, by: 4096) {
      let part = Array(content[start..<min(start + 4096, content.count)])
      guard part.contains(where: { $0 != 0 }) else { continue }
      precondition(unsafe pwrite(file, part, part.count, off_t(start)) == part.count)
    }
    close(file)
    precondition(unsafe rename(new, path) == 0)
  }

  private func withFile(_ body: (Int32) -> Int) {
    let file = unsafe open(path, O_RDWR | O_CLOEXEC)
    defer { close(file) }
    precondition(file >= 0 && body(file) >= 0, "\(path): \(errno)")
  }
}

extension SourceDisk {
  /// One random change, small or large, somewhere.
  ///
  /// - Parameter old: contents that the disk had at other times, to go back to.
  /// - Returns: what was done, for the log.
  func change(_ random: inout SeededGenerator, old: [[UInt8]]) -> String {
    switch Int.random(in: 0..<16, using: &random) {
    case 0:
      let range = randomRange(&random)
      punch(range)
      return "hole \(range)"
    case 1:
      let range = randomRange(&random)
      write(repeatElement(0, count: range.count), at: range.lowerBound)
      return "zeros \(range)"
    case 2:
      let size = Int.random(in: 1...(Self.sizeLimit / 512), using: &random) * 512
      resize(to: min(size, content.count * 3))
      return "size \(content.count)"
    case 3: return duplicate(&random)
    case 4, 5: return goBack(&random, old)
    case 6:
      let range = randomRange(&random)
      write((0..<range.count).map { UInt8(truncatingIfNeeded: $0 / 100) }, at: range.lowerBound)
      return "pattern \(range)"
    case 7: return "nothing"
    default:
      var text: [String] = []
      for _ in 0..<Int.random(in: 1...5, using: &random) {
        let offset = Int.random(in: 0..<content.count, using: &random)
        let count = Int.random(in: 1...9000, using: &random)
        write(random.bytes(count), at: offset)
        text.append("\(offset)+\(count)")
      }
      return "bytes " + text.joined(separator: " ")
    }
  }

  /// The same bytes at two places.
  private func duplicate(_ random: inout SeededGenerator) -> String {
    let from = randomRange(&random)
    let to = Int.random(in: 0..<content.count, using: &random)
    write(Array(content[from].prefix(100_000)), at: to)
    return "copy \(from) to \(to)"
  }

  private func goBack(_ random: inout SeededGenerator, _ old: [[UInt8]]) -> String {
    guard let before = old.randomElement(using: &random) else { return "nothing to go back to" }
    let range = randomRange(&random)
    let clamped = range.clamped(to: 0..<before.count)
    write(Array(before[clamped]), at: clamped.lowerBound)
    return "back \(clamped)"
  }

  private func randomRange(_ random: inout SeededGenerator) -> Range<Int> {
    let start = Int.random(in: 0..<content.count, using: &random)
    let end = Int.random(in: start...content.count, using: &random)
    // Short ranges are as likely as long ones.
    return start..<(Bool.random(using: &random) ? end : min(end, start + 8192))
  }
}
