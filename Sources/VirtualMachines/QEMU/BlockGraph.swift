import Platform

/// What QEMU's block layer is made of at one moment: nodes, what lies below each, who uses them.
struct BlockGraph {
  let nodes: [String: BlockNode]
  let devices: [AttachedDevice]
  /// Of NBD and every other kind.
  let exports: [BlockExport]
  let jobs: [BlockJob]

  init(reading monitor: QMPConnection) throws(StrobeError) {
    var nodes = try Self.nodes(monitor)
    if nodes.values.allSatisfy({ $0.children.isEmpty }) {
      try Self.addChildren(to: &nodes, monitor)
    }
    self.nodes = nodes
    let blocks = try monitor.execute("query-block").elements ?? []
    devices = blocks.compactMap { AttachedDevice($0) }
    exports = try Self.exports(monitor)
    jobs = try Self.jobs(monitor)
  }

  /// All nodes by name; before QEMU 10.1 without their children.
  static func nodes(_ monitor: QMPConnection) throws(StrobeError) -> [String: BlockNode] {
    let listed = try monitor.execute("query-named-block-nodes", ["flat": true]).elements ?? []
    var nodes: [String: BlockNode] = [:]
    for entry in listed {
      if let node = BlockNode(entry) { nodes[node.name] = node }
    }
    return nodes
  }

  static func exports(_ monitor: QMPConnection) throws(StrobeError) -> [BlockExport] {
    (try monitor.execute("query-block-exports").elements ?? []).compactMap { BlockExport($0) }
  }

  static func jobs(_ monitor: QMPConnection) throws(StrobeError) -> [BlockJob] {
    (try monitor.execute("query-jobs").elements ?? []).compactMap { BlockJob($0) }
  }

  /// Before QEMU 10.1 only a command for debugging says what lies below a node.
  private static func addChildren(to nodes: inout [String: BlockNode], _ monitor: QMPConnection)
    throws(StrobeError)
  {
    guard case .success(let graph) = try monitor.ask("x-debug-query-block-graph") else { return }
    var names: [Int: String] = [:]
    for entry in graph["nodes"]?.elements ?? [] where entry["type"]?.text == "block-driver" {
      if let id = entry["id"]?.integer, let name = entry["name"]?.text { names[id] = name }
    }
    for edge in graph["edges"]?.elements ?? [] {
      guard let parent = edge["parent"]?.integer.flatMap({ names[$0] }),
        let child = edge["child"]?.integer.flatMap({ names[$0] }), let role = edge["name"]?.text
      else { continue }
      nodes[parent]?.children[role] = child
    }
  }

  /// The node that `name` has as its `file`.
  func below(_ name: String) -> BlockNode? {
    nodes[name]?.children["file"].flatMap { nodes[$0] }
  }

  /// Nodes that have `name` as their `file`.
  func parents(of name: String) -> [BlockNode] {
    nodes.values.filter { $0.children["file"] == name }
  }
}

struct BlockNode {
  let name: String
  /// `raw`, `qcow2`, `file`, `copy-before-write`, …
  let driver: String
  let isReadOnly: Bool
  /// Bytes.
  let size: Int
  /// The file's name, or a description that begins with `json:`.
  let storage: String
  let detectsZeroes: String
  let isDirect: Bool
  let ignoresFlushes: Bool
  let bitmaps: [DirtyBitmap]
  /// By role: `file`, `backing`, `target`.
  var children: [String: String] = [:]

  init?(_ entry: JSONValue) {
    guard let name = entry["node-name"]?.text, let driver = entry["drv"]?.text else { return nil }
    self.name = name
    self.driver = driver
    isReadOnly = entry["ro"]?.flag ?? false
    size = entry["image"]?["virtual-size"]?.integer ?? 0
    storage = entry["file"]?.text ?? ""
    detectsZeroes = entry["detect_zeroes"]?.text ?? "off"
    isDirect = entry["cache"]?["direct"]?.flag ?? false
    ignoresFlushes = entry["cache"]?["no-flush"]?.flag ?? false
    bitmaps = (entry["dirty-bitmaps"]?.elements ?? []).compactMap { DirtyBitmap($0) }
    for child in entry["children"]?.elements ?? [] {
      if let role = child["child"]?.text, let below = child["node-name"]?.text {
        children[role] = below
      }
    }
  }
}

/// A record of what is written to a node. A job's own has no name and isn't listed here.
struct DirtyBitmap: Equatable {
  let name: String
  let isRecording: Bool
  let isBusy: Bool
  /// QEMU was killed while it recorded: nobody knows what is missing.
  let isInconsistent: Bool
  /// Bytes.
  let granularity: Int

  init?(_ entry: JSONValue) {
    guard let name = entry["name"]?.text else { return nil }
    self.name = name
    isRecording = entry["recording"]?.flag ?? false
    isBusy = entry["busy"]?.flag ?? false
    isInconsistent = entry["inconsistent"]?.flag ?? false
    granularity = entry["granularity"]?.integer ?? 0
  }
}

/// A guest's drive, with its medium.
struct AttachedDevice {
  /// `/machine/peripheral/vd1/virtio-backend`, `sda0`, or nil.
  let device: String?
  /// Of `-drive`; empty for a node that was made by `-blockdev`.
  let drive: String
  let node: String
  let isReadOnly: Bool
  let isRemovable: Bool

  init?(_ entry: JSONValue) {
    guard let medium = entry["inserted"], let node = medium["node-name"]?.text else { return nil }
    self.node = node
    device = entry["qdev"]?.text
    drive = entry["device"]?.text ?? ""
    isReadOnly = medium["ro"]?.flag ?? false
    isRemovable = entry["removable"]?.flag ?? false
  }
}

struct BlockExport {
  let id: String
  let kind: String
  let node: String
  let isEnding: Bool

  init?(_ entry: JSONValue) {
    guard let id = entry["id"]?.text, let node = entry["node-name"]?.text else { return nil }
    self.id = id
    self.node = node
    kind = entry["type"]?.text ?? ""
    isEnding = entry["shutting-down"]?.flag ?? false
  }
}

struct BlockJob {
  let id: String
  /// `running`, `concluded`, …
  let status: String
  /// `mirror`, `backup`, …
  let kind: String
  let error: String?
  /// Whether it is about disks that the guest may use.
  var isOfBlocks: Bool { ["commit", "stream", "mirror", "backup"].contains(kind) }

  init?(_ entry: JSONValue) {
    guard let id = entry["id"]?.text else { return nil }
    self.id = id
    kind = entry["type"]?.text ?? ""
    status = entry["status"]?.text ?? ""
    error = entry["error"]?.text
  }
}
