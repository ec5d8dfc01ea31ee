import Engine
import Platform
import TestSupport

/// Something that is crashed at every step: a history, and what is recorded.
struct Operation: Sendable {
  let name: String
  /// Plays the history, and calls `record` with what is to be crashed.
  let play: @Sendable (Play) throws -> Void
}

extension Operation {
  static let all: [Operation] = [
    Operation(name: "init") { play in
      try play.record { try play.create() }
    },
    Operation(name: "first") { play in
      try play.create()
      try play.record { try play.snapshot() }
    },
    Operation(name: "snapshot") { play in
      try play.history(1...4)
      try play.record { try play.snapshot() }
    },
    Operation(name: "snapshots") { play in
      try play.history(0...3)
      try play.record {
        try play.snapshot()
        try play.snapshot()
      }
    },
    Operation(name: "new-disk") { play in
      try play.history(1...3)
      try play.addDisk("added")
      try play.record { try play.snapshot() }
    },
    Operation(name: "full-store") { play in
      try play.history(1...3)
      try play.record {
        try play.failingSnapshot()
        try play.snapshot()
      }
    },
    Operation(name: "delete") { play in
      try play.history(2...5)
      try play.record { try play.deleteSome(Int.random(in: 1...2, using: &play.random)) }
    },
    Operation(name: "gc") { play in
      try play.history(3...6)
      try play.deleteSome(Int.random(in: 1...3, using: &play.random))
      try play.record { try play.collect() }
    },
    // Long chains with gaps: layers are merged, parts of segments freed.
    Operation(name: "gc-merge-punch") { play in
      try play.sparseHistory()
      try play.record { try play.collect() }
    },
    Operation(name: "gc-merge-rewrite") { play in
      try play.sparseHistory()
      try play.record { try play.collect(rewriting: true) }
    },
    Operation(name: "gc-again-after-crash") { play in
      try play.sparseHistory()
      try play.record { try play.collect(rewriting: Bool.random(using: &play.random)) }
      try play.crash()
      try play.record { try play.collect(rewriting: Bool.random(using: &play.random)) }
    },
    Operation(name: "gc-after-crash") { play in
      try play.history(2...4)
      try play.record { try play.snapshot() }
      try play.crash()
      try play.record { try play.collect() }
    },
    Operation(name: "snapshot-after-crash") { play in
      try play.history(1...3)
      try play.record {
        try play.snapshot()
        try play.deleteSome(1)
        try play.collect()
      }
      try play.crash()
      try play.record { try play.snapshot() }
    },
    // A kill, and then a power cut: what the killed one left is still pending when the next one builds on it.
    Operation(name: "killed-snapshot") { play in
      try play.history(0...2)
      try play.changeDisks()
      try play.record {
        try play.killed { try play.snapshot(change: false) }
        try play.snapshot(change: Int.random(in: 0..<3, using: &play.random) == 0)
      }
    },
    Operation(name: "killed-gc") { play in
      try play.sparseHistory()
      try play.record {
        try play.killed { try play.collect() }
        try play.snapshot()
        try play.collect()
      }
    },
    Operation(name: "everything") { play in
      try play.history(2...4)
      try play.record {
        try play.snapshot()
        try play.deleteSome(2)
        try play.collect()
        try play.snapshot()
      }
    },
    // So many that the list of points is kept in a cache.
    Operation(name: "many-points") { play in
      try play.history(32...34)
      try play.record {
        try play.snapshot()
        try play.deleteSome(1)
        try play.list()
      }
    },
    Operation(name: "prune") { play in
      try play.history(5...8)
      try play.protect(play.somePoints(1), note: "kept")
      try play.record { try play.prune(keeping: Int.random(in: 1...2, using: &play.random)) }
    },
    // One of them has a protection already, which gets another note.
    Operation(name: "protect") { play in
      try play.history(3...5)
      let chosen = play.somePoints(3)
      try play.protect([chosen[0]], note: "first")
      try play.record { try play.protect(chosen, note: "second") }
    },
    Operation(name: "unprotect") { play in
      try play.history(3...5)
      let chosen = play.somePoints(3)
      try play.protect(chosen, note: "for now")
      try play.record { try play.unprotect(Array(chosen.dropLast())) }
    },
    Operation(name: "verify") { play in
      try play.history(2...4)
      try play.damageSome()
      if Bool.random(using: &play.random) { try play.forgetDamage() }
      try play.record { try play.verify() }
    },
    Operation(name: "heal-snapshot") { play in
      try play.history(2...4)
      try play.damageSome()
      try play.record { try play.healingSnapshot() }
    },
    Operation(name: "heal-copy") { play in
      try play.history(2...4)
      try play.damageSome()
      try play.record { try play.healFromCopy() }
    },
    // Repairs are replaced that other points rely on.
    Operation(name: "heal-again") { play in
      try play.history(2...4)
      try play.damageSome()
      try play.healFromCopy()
      try play.snapshot()
      try play.damageSome()
      try play.record { try play.healFromCopy() }
    },
    // Repairs and what they replace, of which a part is needed.
    Operation(name: "gc-healed") { play in
      try play.sparseHistory()
      try play.damageSome()
      try play.healFromCopy()
      try play.snapshot()
      try play.deleteSome(1)
      try play.record { try play.collect(rewriting: Bool.random(using: &play.random)) }
    },
    Operation(name: "gc-rewrite") { play in
      try play.fragmentedHistory()
      try play.recordRewrite()
    },
    Operation(name: "resume") { play in
      try play.history(1...3)
      try play.recordResumption()
    },
    // Mostly the next snapshot finds nothing to take over any more.
    Operation(name: "gc-unfinished") { play in
      try play.history(2...3)
      try play.deleteSome(1)
      try play.interrupt()
      try play.record {
        try play.collect(dropping: Int.random(in: 0..<3, using: &play.random) > 0)
        try play.snapshot(change: false)
      }
    },
    Operation(name: "repair") { play in
      try play.history(2...3)
      try removeFile(play.repository + "/config.json")
      try play.record { try play.repair() }
    },
  ]
}

extension Play {
  /// A repository with so many points.
  func history(_ counts: ClosedRange<Int>) throws {
    try create()
    for _ in 0..<Int.random(in: counts, using: &random) { try snapshot() }
  }

  /// A repository of many points of which most were deleted.
  func sparseHistory() throws {
    options.keyframeLayerLimit = 32
    // Segments of which parts are needed, too.
    if Int.random(in: 0..<3, using: &random) > 0 { options.segmentRollover = 1 << 20 }
    try history(1...1)
    for _ in 0..<Int.random(in: 5...8, using: &random) {
      for _ in 0..<3 { try changeDisks() }
      try snapshot()
    }
    try deleteSome(Int.random(in: (present.count / 2)...(present.count - 2), using: &random))
  }
}
