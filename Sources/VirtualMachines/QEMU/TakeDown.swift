import Glibc
import Platform

/// Takes away what passes put into QEMU: exports, their server, jobs, filters, nodes, in the order in which
/// QEMU lets go of them.
///
/// - It goes by what is there, not by what somebody remembers: the end of a pass and the clearing up after one
///   that was killed at any step are the same. It may be run again.
/// - The disks are attached as they were before; bitmaps are left alone.
struct TakeDown {
  private static let waitMilliseconds = 20_000

  let monitor: QMPConnection
  let features: QEMUFeatures
  /// Whether the NBD server may be somebody else's although nothing is exported with it. Asked when QEMU has answered
  /// whatever it was told before.
  var sparesServer = { false }
  /// Whose things.
  let concerns: (PassNames) -> Bool

  private func isMeant(_ name: String) -> Bool { PassNames(reading: name).map(concerns) ?? false }

  func run() throws(StrobeError) {
    let graph = try BlockGraph(reading: monitor)
    guard
      graph.nodes.keys.contains(where: isMeant) || graph.jobs.contains(where: { isMeant($0.id) })
        || graph.exports.contains(where: { isMeant($0.id) })
    else { return }
    try endExports(graph)
    let hadJobs = try endJobs(graph)
    try restoreDisks()
    try deleteNodes([.filter, .overlay])
    if hadJobs { try letGoOn() }
  }

  private func endExports(_ graph: BlockGraph) throws(StrobeError) {
    for export in graph.exports where isMeant(export.id) {
      // One that ends already is no mistake.
      _ = try monitor.ask("block-export-del", ["id": .string(export.id), "mode": "hard"])
    }
    try wait("the exports") { () throws(StrobeError) in
      try !BlockGraph.exports(monitor).contains { isMeant($0.id) }
    }
    let others = graph.exports.contains { $0.kind == "nbd" && !isMeant($0.id) }
    if !others && !sparesServer() { _ = try monitor.ask("nbd-server-stop") }
  }

  private func endJobs(_ graph: BlockGraph) throws(StrobeError) -> Bool {
    let jobs = graph.jobs.filter { isMeant($0.id) }
    for job in jobs where job.status != "concluded" {
      _ = try monitor.ask("job-cancel", ["id": .string(job.id)])
    }
    try wait("the jobs") { () throws(StrobeError) in
      let left = try BlockGraph.jobs(monitor).filter { isMeant($0.id) }
      for job in left where job.status == "concluded" {
        _ = try monitor.ask("job-dismiss", ["id": .string(job.id)])
      }
      return left.isEmpty
    }
    return !jobs.isEmpty
  }

  /// Puts the disks back to what lies below the filters.
  private func restoreDisks() throws(StrobeError) {
    try deleteNodes([.access])
    let graph = try BlockGraph(reading: monitor)
    var reopened: [JSONValue] = []
    for filter in graph.nodes.keys.sorted() where isMeant(filter) {
      guard PassNames.kind(of: filter) == .filter, let below = graph.below(filter) else { continue }
      for parent in graph.parents(of: filter) where parent.driver == "raw" {
        reopened.append(parent.reopenOptions(above: below.name))
      }
      for device in graph.devices where device.node == filter {
        guard let path = device.device else { continue }
        try monitor.execute("qom-set", Self.drive(of: path, below.name))
      }
    }
    if !reopened.isEmpty { try monitor.execute("blockdev-reopen", ["options": .array(reopened)]) }
  }

  /// The arguments of `qom-set` that give a device another node.
  static func drive(of device: String, _ node: String) -> [String: JSONValue] {
    let path = device.hasPrefix("/") ? device : "/machine/peripheral/" + device
    return ["path": .string(path), "property": "drive", "value": .string(node)]
  }

  private func deleteNodes(_ kinds: [PassNames.Kind]) throws(StrobeError) {
    let graph = try BlockGraph(reading: monitor)
    for kind in kinds {
      for name in graph.nodes.keys.sorted()
      where isMeant(name) && PassNames.kind(of: name) == kind {
        try delete(name)
      }
    }
  }

  /// An export that has just ended may hold its node for a moment.
  private func delete(_ node: String) throws(StrobeError) {
    var refusal: QMPError?
    do throws(StrobeError) {
      try wait("node \(node)") { () throws(StrobeError) in
        switch try monitor.ask("blockdev-del", ["node-name": .string(node)]) {
        case .success: return true
        case .failure(let error):
          refusal = error
          return error.text.contains("Failed to find node")
        }
      }
    } catch {
      throw refusal?.failure(of: "blockdev-del", at: monitor.path) ?? error
    }
  }

  /// QEMU stops a guest whose write failed because a job had no space. Without the job it goes through.
  private func letGoOn() throws(StrobeError) {
    guard features.hasProcessors,
      try monitor.execute("query-status")["status"]?.text == "io-error"
    else { return }
    try monitor.execute("cont")
  }

  private func wait(_ what: String, until isDone: () throws(StrobeError) -> Bool)
    throws(StrobeError)
  {
    let deadline = monotonicMilliseconds() + Self.waitMilliseconds
    while try !isDone() {
      guard monotonicMilliseconds() < deadline else {
        throw StrobeError(
          .system(errno: ETIMEDOUT, call: "wait", object: monitor.path),
          "\(monitor.path): QEMU doesn't let go of \(what)", advice: "run it again later")
      }
      usleep(5_000)
    }
  }
}

extension BlockNode {
  /// What `blockdev-reopen` takes to put a raw node above another one. What isn't named falls back to QEMU's
  /// defaults; `discard` alone stays as it is.
  func reopenOptions(above node: String) -> JSONValue {
    [
      "driver": "raw", "node-name": .string(name), "file": .string(node),
      "detect-zeroes": .string(detectsZeroes),
      "cache": ["direct": .bool(isDirect), "no-flush": .bool(ignoresFlushes)],
    ]
  }
}
