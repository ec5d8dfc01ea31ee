import Engine
import Platform

extension World {
  /// A garbage collection; what it says beforehand is what it does.
  func collectGarbage() -> Operation {
    let pointsBefore = pointCount
    let sweepsBefore = hasDeadPasses
    let drops = Bool.random(using: &random)
    ageJournals()
    let text = "gc" + (drops ? " --drop-unfinished" : "")
    return Operation(
      kind: "gc", text: text,
      body: { stop in
        let engine = try self.engine()
        let said = try engine.collectGarbage(dryRun: true, dropsUnfinished: drops, stop: stop)
        let done = try engine.collectGarbage(dropsUnfinished: drops, stop: stop)
        return "\(GarbageCounts(said).text)\u{1E}\(GarbageCounts(done).text)"
      },
      settle: { ending, tolerance in
        try self.require(self.pointCount == pointsBefore || tolerance.isConcurrent, "gc: points")
        switch ending {
        case .failed(let failure): try self.judge(failure, tolerance, text)
        case .killed: break
        case .returned(let result):
          self.rot.makeIrreversible { $0.hasPrefix("layers/") || $0.hasPrefix("segments/") }
          guard tolerance.isStrict else { return }
          let counts = result.split(separator: "\u{1E}").map(GarbageCounts.init(text:))
          // What passes that died left is swept before gc begins to count.
          if !sweepsBefore { try self.check(said: counts[0], done: counts[1]) }
          self.log.add("  gc: \(counts[1].description)")
          try self.checkNothingIsLeft(keepsUnfinished: !drops)
        }
      })
  }

  private var hasDeadPasses: Bool {
    namesInFolder(repository + "/locks").contains { $0.hasPrefix("pass-") }
  }

  /// Journals are given up after a week, also by the times of their files, which are the machine's own:
  /// here they are the world's.
  private func ageJournals() {
    let days = Bool.random(using: &random) ? 0 : Int.random(in: 0...14, using: &random)
    let changed = clock - days * 86_400_000_000_000
    let room = repository + "/journal"
    for file in filesBelow(room) { setChanged("\(room)/\(file)", nanoseconds: changed) }
    for collection in namesInFolder(room) {
      for pass in namesInFolder("\(room)/\(collection)") {
        setChanged("\(room)/\(collection)/\(pass)", nanoseconds: changed)
      }
    }
  }

  private func check(said: GarbageCounts, done: GarbageCounts) throws(Finding) {
    let what = "gc said \(said.description), did \(done.description)"
    try require(
      said.layers == done.layers && said.merged == done.merged && said.inUse == done.inUse
        && said.unfinished == done.unfinished && said.rewritten == done.rewritten, what)
    // Records beyond the end of a segment that was cut count as live beforehand: see BUGS.md.
    guard rot.isEmpty else { return }
    guard said.merged > 0 else { return try require(said == done, what) }
    // Merging lets go of layers that were the last to name a segment: the dry run counts its dead parts,
    // and nothing of the block that its header lies in.
    let more = done.segments - said.segments
    try require(more >= 0 && 0...(more * 4096) ~= done.bytes - said.bytes, what)
  }
}

/// What a collection counted, as text, because it may come from another process.
private struct GarbageCounts: Equatable {
  let layers: Int
  let segments: Int
  let merged: Int
  let rewritten: Int
  /// Bytes.
  let bytes: Int
  let partBytes: Int
  let inUse: Int
  let unfinished: Int

  init(_ report: GarbageReport) {
    layers = report.layers
    segments = report.segments
    merged = report.mergedLayers
    rewritten = report.rewrittenSegments
    bytes = report.bytes
    partBytes = report.partBytes
    inUse = report.inUse
    unfinished = report.unfinishedBytes
  }

  init(text: Substring) {
    let numbers = text.split(separator: " ").map { Int($0)! }
    (layers, segments, merged, rewritten) = (numbers[0], numbers[1], numbers[2], numbers[3])
    (bytes, partBytes, inUse, unfinished) = (numbers[4], numbers[5], numbers[6], numbers[7])
  }

  var text: String {
    [layers, segments, merged, rewritten, bytes, partBytes, inUse, unfinished].map(String.init)
      .joined(separator: " ")
  }

  var description: String {
    "\(layers) layers, \(segments) segments, \(merged) merged, \(rewritten) rewritten,"
      + " \(bytes) bytes, \(partBytes) of parts, \(inUse) in use, \(unfinished) unfinished"
  }
}
