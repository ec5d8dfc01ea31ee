import CLinux
import Platform

/// A disk of a guest, with its place in QEMU's block layer.
///
/// ```
///   device ─ attached ─ … ─ node ─ … ─ storage
/// ```
struct QEMUDisk {
  let disk: GuestDisk
  /// The device's path in QEMU's object tree; nil for an export of qemu-storage-daemon.
  let device: String?
  /// The node that the device, or the export, has.
  let attached: String
  /// What keeps the record of changes: the image format below raw filters.
  let node: String
  /// Whether the image can keep the record beyond QEMU's end.
  let keepsBitmaps: Bool
  /// Tells the disk's record from that of another one, and from what was noted over other backing files (`BitmapMark`).
  let bitmapMark: String
  /// What a filter goes above when `attached` can be opened anew with another node below it.
  let reopened: String?

  var name: String { disk.name }
}

extension QEMUDisk {
  /// Formats that may lie below a raw filter.
  private static let formats: Set = [
    "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "luks", "parallels",
  ]

  init(
    named name: String, device: String?, attached: BlockNode, in graph: BlockGraph,
    obstacle: String?
  ) {
    self.device = device
    let top = Self.withoutFilters(attached, graph)
    self.attached = top.name
    var format = top
    // A raw node that shows a part of what lies below counts its bytes from another place.
    while format.driver == "raw", let below = Self.skippingFilters(under: format, graph),
      Self.formats.contains(below.driver), below.size == format.size
    {
      format = below
    }
    node = format.name
    // The data of an image that keeps them in another file can be changed without the image.
    keepsBitmaps = format.driver == "qcow2" && format.children["data-file"] == nil
    bitmapMark = BitmapMark.text(of: format, name, graph)
    reopened = Self.reopenable(top, graph)
    let storage = Self.storage(below: format, graph)
    disk = GuestDisk(
      name: name, size: top.size, identity: Self.identity(storage, name), storage: storage,
      obstacle: obstacle)
  }

  /// Where an earlier pass left its filter, the disk is what lies below.
  static func withoutFilters(_ node: BlockNode, _ graph: BlockGraph) -> BlockNode {
    var top = node
    while PassNames(reading: top.name) != nil, let below = graph.below(top.name) { top = below }
    return top
  }

  private static func skippingFilters(under node: BlockNode, _ graph: BlockGraph) -> BlockNode? {
    graph.below(node.name).map { withoutFilters($0, graph) }
  }

  /// A node whose name QEMU made up can't be opened anew; one that shows a part of what lies below must not,
  /// for QEMU doesn't say which part.
  private static func reopenable(_ node: BlockNode, _ graph: BlockGraph) -> String? {
    guard node.driver == "raw", !node.name.hasPrefix("#"),
      let below = skippingFilters(under: node, graph), below.size == node.size
    else { return nil }
    return below.name
  }

  /// The file or device at the bottom.
  private static func storage(below node: BlockNode, _ graph: BlockGraph) -> String? {
    var bottom = node
    // A graph has no rings; a limit all the same, for it is QEMU that says so.
    for _ in 0..<64 {
      guard let below = graph.below(bottom.name) else { break }
      bottom = below
    }
    let name = bottom.storage.isEmpty ? node.storage : bottom.storage
    return name.isEmpty ? nil : name
  }

  /// Survives a restart of QEMU and a reboot. An inode's number is used again some day, its birth time is not.
  private static func identity(_ storage: String?, _ name: String) -> String {
    guard let storage else { return "qemu:\(name)" }
    guard let facts = try? FileFacts(path: storage), facts.isRegularFile else {
      return "qemu:\(storage):\(name)"
    }
    let born = "\(facts.birth_seconds).\(facts.birth_nanoseconds)"
    return "qemu:inode:\(facts.inode):born:\(born):\(name)"
  }
}
