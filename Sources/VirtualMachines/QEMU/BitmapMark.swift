import CLinux
import Platform

/// What is in the name of a disk's bitmap beside the point: whose disk it is of, and what that lay over.
///
/// A bitmap moves with its image: one that was copied over another disk's brings its own along, under the same point. And it
/// says nothing of what the image lies over: `qemu-img rebase -u` gives it other backing files while the guest is off. With
/// the mark both have no bitmap of the right name, and are read whole.
enum BitmapMark {
  /// Of the disk `disk` with the image format node `format`: 16 hexadecimal digits.
  static func text(of format: BlockNode, _ disk: String, _ graph: BlockGraph) -> String {
    var facts = [disk]
    var image = format
    // A graph has no rings; a limit all the same, for it is QEMU that says so.
    for _ in 0..<256 {
      guard let below = image.children["backing"].flatMap({ graph.nodes[$0] }) else { break }
      facts.append("\(below.driver) \(below.size)")
      facts += files(below, graph, limit: 16)
      image = below
    }
    let bytes = Array(facts.joined(separator: "\0").utf8)
    let sum = unsafe bytes.withUnsafeBytes { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
    return hexadecimal((0..<8).map { UInt8(truncatingIfNeeded: sum >> (56 - 8 * $0)) })
  }

  /// What a backing image is stored in. Nobody writes to it while it is one, so the time of its last change stays.
  private static func files(_ image: BlockNode, _ graph: BlockGraph, limit: Int) -> [String] {
    let below = image.children.filter { $0.key != "backing" }.sorted { $0.key < $1.key }
      .compactMap { graph.nodes[$0.value] }
    guard below.isEmpty || limit == 0 else {
      return below.flatMap { files($0, graph, limit: limit - 1) }
    }
    guard let facts = try? FileFacts(path: image.storage), facts.isRegularFile else {
      return [image.storage]
    }
    return [
      "\(facts.inode) \(facts.birth_seconds).\(facts.birth_nanoseconds) \(facts.size) "
        + "\(facts.modified_seconds).\(facts.modified_nanoseconds)"
    ]
  }
}
