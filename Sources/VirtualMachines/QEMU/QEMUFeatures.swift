import Platform

/// What this QEMU can do.
struct QEMUFeatures {
  let major: Int
  let minor: Int
  let micro: Int
  let commands: Set<String>
  /// Whether a filter's own view can be read at any place and length; see `FilterCut.swift`.
  let hasSoundViews: Bool

  /// - Parameter trustsViews: for tests: whether the views of an old version are read, too.
  init(reading monitor: QMPConnection, trustsViews: Bool) throws(StrobeError) {
    let version = try monitor.execute("query-version")["qemu"]
    major = version?["major"]?.integer ?? 0
    minor = version?["minor"]?.integer ?? 0
    micro = version?["micro"]?.integer ?? 0
    let listed = try monitor.execute("query-commands").elements ?? []
    commands = Set(listed.compactMap { $0["name"]?.text })
    hasSoundViews = trustsViews || major >= 8
  }

  var version: String { "\(major).\(minor).\(micro)" }

  func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
    (self.major, self.minor) >= (major, minor)
  }

  /// A guest with processors; qemu-storage-daemon has none.
  var hasProcessors: Bool { commands.contains("query-status") }

  var canExport: Bool {
    ["block-export-add", "nbd-server-start", "transaction"].allSatisfy(commands.contains)
  }

  /// A copy-before-write filter that gives up the snapshot and not the guest's write, and a view of it.
  /// What has to be undone later has to be seen then, too.
  var hasFilters: Bool {
    isAtLeast(10, 1) || isAtLeast(7, 1) && commands.contains("x-debug-query-block-graph")
  }

  var canReopen: Bool {
    hasFilters && hasSoundViews && commands.contains("blockdev-reopen")
  }

  /// Exporting a disk that is served by an iothread ends these with a failed assertion, which nothing prevents.
  var abortsOnIOThreads: Bool { !isAtLeast(9, 0) }

  /// Whether a backup job can be told to give up the snapshot when it runs out of space: since QEMU 10.1.
  func canBreakBackups(_ monitor: QMPConnection) throws(StrobeError) -> Bool {
    // The answer is long.
    guard isAtLeast(9, 0) else { return false }
    let schema = try monitor.execute("query-qmp-schema").elements ?? []
    let command = schema.first {
      $0["name"]?.text == "blockdev-backup" && $0["meta-type"]?.text == "command"
    }
    guard let type = command?["arg-type"]?.text else { return false }
    let arguments = schema.first { $0["name"]?.text == type }
    return arguments?["members"]?.elements?.contains { $0["name"]?.text == "on-cbw-error" } ?? false
  }
}
