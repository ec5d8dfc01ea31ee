import Platform
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// What every object store must do. Each check works below a folder of its own.
struct ObjectStoreConformance {
  let store: any ObjectStore
  /// Starts another process that takes a lock of the store and keeps it until it is killed.
  let lockElsewhere: (_ name: String) throws -> RunningProcess

  /// Runs every check.
  func run() throws {
    try putAndGet()
    try replacing()
    try missing()
    try writing()
    try synchronizing()
    try names()
    try removal()
    try holding()
    try replacingUnheld()
    try freeing()
    try rewriting()
    try checkedRemoval()
    try locking()
    try takingOver()
    try lockOfAnotherProcess()
    try concurrentPuts()
    try concurrentLocks()
  }

  private func reason(_ body: () throws -> Void) -> StrobeError.Reason? {
    do {
      try body()
      return nil
    } catch {
      return (error as? StrobeError)?.reason
    }
  }

  /// What is put is got; a limit is kept.
  func putAndGet() throws {
    for (index, bytes) in [[], [7], [UInt8](repeating: 9, count: 100_000)].enumerated() {
      let name = "put/deep/\(index)"
      try store.put(name, bytes, replacing: false)
      #expect(try store.get(name, limit: 1 << 20) == bytes)
      #expect(try store.get(name, limit: bytes.count) == bytes)
      #expect(try store.open(name).size == bytes.count)
      #expect(try store.exists(name))
    }
    let error = #expect(throws: StrobeError.self) { try store.get("put/deep/2", limit: 99_999) }
    #expect(error?.isDamage == true)
  }

  /// What a writer left that never finished can be made durable, and stays what it is.
  func synchronizing() throws {
    do {
      let writer = try store.create("synchronize/a")
      try unsafe [UInt8](repeating: 5, count: 9000).withBytes { (bytes) throws(StrobeError) in
        try unsafe writer.write(bytes, at: 0)
      }
    }
    try store.synchronize("synchronize/a")
    try store.synchronize("synchronize/a")
    #expect(try store.get("synchronize/a", limit: 9000) == [UInt8](repeating: 5, count: 9000))
    #expect(reason { try store.synchronize("synchronize/b") } == .notFound)
    #expect(reason { try store.synchronize("nowhere/b") } == .notFound)
  }

  /// An object is replaced only by who says so.
  func replacing() throws {
    try store.put("replace/a", [1], replacing: false)
    #expect(reason { try store.put("replace/a", [2], replacing: false) } == .exists)
    #expect(try store.get("replace/a", limit: 9) == [1])
    let reader = try store.open("replace/a")
    try store.put("replace/a", [3, 4], replacing: true)
    #expect(try store.get("replace/a", limit: 9) == [3, 4])
    #expect(try bytes(reader, 0, 1) == [1], "an open object must not change")
    try store.put("replace/new", [5], replacing: true)
    #expect(try store.get("replace/new", limit: 9) == [5])
    #expect(try Set(store.names(in: "replace")) == ["a", "new"], "a put must leave nothing else")
  }

  /// A held object is not replaced; one that is open goes on showing what it was.
  func replacingUnheld() throws {
    try store.put("unheld/a", [1], replacing: false)
    let lock = try store.hold("unheld/a")
    #expect(try !store.replaceUnlessHeld("unheld/a", [2]))
    #expect(try store.get("unheld/a", limit: 9) == [1])
    lock.release()
    let reader = try store.open("unheld/a")
    #expect(try store.replaceUnlessHeld("unheld/a", [2, 3]))
    #expect(try store.get("unheld/a", limit: 9) == [2, 3])
    #expect(try bytes(reader, 0, 1) == [1])
    try store.hold("unheld/a").release()
    #expect(reason { _ = try store.replaceUnlessHeld("unheld/none", [1]) } == .notFound)
    #expect(try store.names(in: "unheld") == ["a"], "nothing else may be left")
  }

  private static let large = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 % 251 + 1) }

  private func expectOnly(_ ranges: [Range<Int>], _ name: String, all: Bool = true) throws {
    let found = try store.get(name, limit: 1 << 20)
    #expect(found.count == Self.large.count)
    for range in ranges { #expect(found[range] == Self.large[range]) }
    let kept = ranges.reduce(0) { $0 + $1.count }
    if all { #expect(found.count { $0 != 0 } == kept, "the rest reads as zeros") }
  }

  /// Freed ranges may read as zeros; nothing else changes, and the room comes back.
  func freeing() throws {
    try store.put("free/a", Self.large, replacing: false)
    let before = try store.storage(of: "free/a")
    #expect(before.size == Self.large.count && before.allocated > 0)
    let isFreed = try store.free([4096..<40_960, 98_304..<102_400], of: "free/a")
    let kept = [0..<4096, 40_960..<98_304]
    try expectOnly(isFreed ? kept : [0..<100_000], "free/a", all: isFreed)
    let after = try store.storage(of: "free/a")
    #expect(after.size == before.size)
    if isFreed { #expect(after.allocated <= before.allocated - 36_864) }
    #expect(try store.free([], of: "free/a") || !isFreed)
    #expect(reason { _ = try store.free([0..<4096], of: "free/none") } == .notFound)
    #expect(reason { _ = try store.storage(of: "free/none") } == .notFound)
  }

  /// A rewritten object keeps its size and the ranges asked for; who has it open sees the old one.
  func rewriting() throws {
    try store.put("rewrite/a", Self.large, replacing: false)
    let before = try store.storage(of: "rewrite/a")
    let reader = try store.open("rewrite/a")
    try store.rewrite("rewrite/a", keeping: [0..<4096, 40_960..<98_304])
    try expectOnly([0..<4096, 40_960..<98_304], "rewrite/a")
    #expect(try store.storage(of: "rewrite/a").allocated < before.allocated)
    #expect(try bytes(reader, 5000, 3) == Array(Self.large[5000..<5003]))
    try store.rewrite("rewrite/a", keeping: [])
    try expectOnly([], "rewrite/a")
    #expect(try store.names(in: "rewrite") == ["a"], "nothing else may be left")
    #expect(reason { try store.rewrite("rewrite/none", keeping: []) } != nil)
  }

  /// What isn't there is not found.
  func missing() throws {
    try store.put("missing/file", [1], replacing: false)
    for name in ["missing/a", "nowhere/at/all", "missing/file/below"] {
      #expect(reason { _ = try store.get(name, limit: 9) } == .notFound)
      #expect(reason { _ = try store.open(name) } == .notFound)
      #expect(reason { _ = try store.hold(name) } == .notFound)
      #expect(reason { _ = try store.removeUnlessHeld(name) } == .notFound)
      #expect(try !store.exists(name))
      #expect(try store.names(in: name) == [])
    }
    try store.remove("missing/a")
    try store.remove("nowhere/at/all")
    #expect(try store.names(in: "missing/file") == [])
  }

  /// Ranges may come in any order; what was never written reads as zeros or not at all.
  func writing() throws {
    let writer = try store.create("write/object")
    #expect(reason { _ = try store.create("write/object") } == .exists)
    var generator = SeededGenerator(seed: 7)
    let content = generator.bytes(300_000)
    let starts = stride(from: 0, to: content.count, by: 10_000).shuffled(using: &generator)
    for start in starts {
      try unsafe Array(content[start..<(start + 10_000)]).withBytes { (bytes) throws(StrobeError) in
        try unsafe writer.write(bytes, at: start)
      }
    }
    try writer.finish()
    #expect(try store.get("write/object", limit: 1 << 20) == content)
    #expect(reason { try store.put("write/object", [1], replacing: false) } == .exists)
    let reader = try store.open("write/object")
    #expect(reader.size == content.count)
    #expect(try bytes(reader, 123, 4567) == Array(content[123..<4690]))
    #expect(try bytes(reader, content.count, 0) == [])
    reader.prefetch(0..<content.count)
    for (offset, count) in [(content.count, 1), (content.count - 5, 6), (-1, 1), (1 << 50, 1)] {
      let error = #expect(throws: StrobeError.self) { try bytes(reader, offset, count) }
      #expect(error?.isDamage == true, "reading \(count) at \(offset)")
    }
  }

  private func bytes(_ reader: any ObjectReader, _ offset: Int, _ count: Int) throws(StrobeError)
    -> [UInt8]
  {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    try unsafe bytes.withMutableBytes { (buffer) throws(StrobeError) in
      try unsafe reader.read(at: offset, into: buffer)
    }
    return bytes
  }

  /// Names with blanks, other scripts and many bytes, and a folder's listing.
  func names() throws {
    let odd = [
      "a b", "Büro", "第一", "e\u{301}", "\u{e9}", "😀", "..x", "x.",
      String(repeating: "n", count: 200),
    ].filter { !$0.hasPrefix(".") }
    for name in odd { try store.put("names/\(name)/\(name)", Array(name.utf8), replacing: false) }
    #expect(
      try Set(store.names(in: "names").map { Array($0.utf8) }) == Set(odd.map { Array($0.utf8) }))
    for name in odd {
      #expect(try store.names(in: "names/\(name)").map { Array($0.utf8) } == [Array(name.utf8)])
      #expect(try store.get("names/\(name)/\(name)", limit: 999) == Array(name.utf8))
    }
  }

  func removal() throws {
    try store.put("remove/a", [1], replacing: false)
    let reader = try store.open("remove/a")
    try store.remove("remove/a")
    #expect(try !store.exists("remove/a"))
    #expect(try store.names(in: "remove") == [])
    #expect(try bytes(reader, 0, 1) == [1], "who has it open may read on")
    try store.put("remove/a", [2], replacing: false)
    #expect(try store.get("remove/a", limit: 9) == [2])
  }

  /// An object that is held, by however many, isn't removed.
  func holding() throws {
    try store.put("hold/a", [1], replacing: false)
    let first = try store.hold("hold/a")
    let second = try store.hold("hold/a")
    #expect(first.name == "hold/a")
    #expect(try !store.removeUnlessHeld("hold/a"))
    first.release()
    #expect(try !store.removeUnlessHeld("hold/a"))
    #expect(try store.exists("hold/a"), "letting go removes nothing")
    second.release()
    #expect(try store.removeUnlessHeld("hold/a"))
    #expect(reason { _ = try store.hold("hold/a") } == .notFound)
    #expect(reason { _ = try store.removeUnlessHeld("hold/a") } == .notFound)
  }

  /// What refuses a removal is asked while nobody holds the object or can begin to, and only then.
  func checkedRemoval() throws {
    try store.put("check/a", [1], replacing: false)
    var asked = 0
    let refusal = StrobeError(.refused, "no")
    let holder = try store.hold("check/a")
    #expect(
      try !store.removeUnlessHeld("check/a") { () throws(StrobeError) in
        asked += 1
        throw refusal
      })
    #expect(asked == 0, "a held object needs no check")
    holder.release()
    let reason = reason {
      _ = try store.removeUnlessHeld("check/a") { () throws(StrobeError) in
        asked += 1
        #expect(self.reason { _ = try store.hold("check/a") } == .busy)
        throw refusal
      }
    }
    #expect(reason == .refused && asked == 1)
    #expect(try store.get("check/a", limit: 9) == [1])
    try store.hold("check/a").release()
    #expect(try store.removeUnlessHeld("check/a") { () throws(StrobeError) in asked += 1 })
    #expect(asked == 2)
    #expect(try !store.exists("check/a"))
  }

  /// A lock is one's alone, carries a note, may be renamed, and its name vanishes with it.
  func locking() throws {
    let lock = try #require(try store.lock("locks/a", note: "first"))
    #expect(lock.name == "locks/a")
    #expect(try store.lock("locks/a", note: "second") == nil)
    #expect(try store.takeOver(lock: "locks/a", note: "second") == nil)
    #expect(try store.holder(ofLock: "locks/a") == "first")
    try store.rename(lock: lock, to: "locks/b")
    #expect(lock.name == "locks/b")
    #expect(try store.holder(ofLock: "locks/a") == nil)
    #expect(try store.holder(ofLock: "locks/b") == "first")
    let other = try #require(try store.lock("locks/a", note: "third"))
    #expect(try store.lock("locks/b", note: "fourth") == nil)
    #expect(try Set(store.names(in: "locks")) == ["a", "b"])
    lock.release()
    other.release()
    #expect(try store.names(in: "locks") == [])
    #expect(try store.holder(ofLock: "locks/b") == nil)
    let again = try #require(try store.lock("locks/a", note: "a shorter"))
    #expect(try store.holder(ofLock: "locks/a") == "a shorter")
    again.release()
    again.release()
  }

  /// Taking over never makes a lock: a holder that is done isn't taken for dead.
  func takingOver() throws {
    #expect(try store.takeOver(lock: "over/none", note: "x") == nil)
    #expect(try store.takeOver(lock: "elsewhere/none", note: "x") == nil)
    #expect(try store.names(in: "over") == [])
    let lock = try #require(try store.lock("over/pass", note: "alive"))
    try store.rename(lock: lock, to: "over/commit")
    #expect(try store.takeOver(lock: "over/pass", note: "x") == nil)
    #expect(try store.names(in: "over") == ["commit"])
    lock.release()
  }

  /// A lock of another process keeps everybody out while it lives, and nobody once it is dead.
  func lockOfAnotherProcess() throws {
    let process = try lockElsewhere("process/a")
    #expect(try store.lock("process/a", note: "mine") == nil)
    #expect(try store.takeOver(lock: "process/a", note: "mine") == nil)
    #expect(try store.holder(ofLock: "process/a") != nil)
    process.signal(9)
    process.wait()
    #expect(try store.holder(ofLock: "process/a") == nil)
    #expect(try store.names(in: "process") == ["a"], "a dead holder leaves its name")
    let lock = try #require(try store.takeOver(lock: "process/a", note: "mine"))
    #expect(try store.holder(ofLock: "process/a") == "mine")
    lock.release()
    #expect(try store.names(in: "process") == [])
  }

  /// Of many who put one name at once exactly one wins, and its bytes are there whole.
  func concurrentPuts() throws {
    let store = store
    for round in 0..<10 {
      let winners = Mutex<[UInt8]>([])
      try onWorkers(8, stop: CancellationFlag()) { (worker) throws(StrobeError) in
        do throws(StrobeError) {
          let bytes = [UInt8](repeating: UInt8(worker), count: 20_000)
          try store.put("race/\(round)", bytes, replacing: false)
          winners.withLock { $0.append(UInt8(worker)) }
        } catch {
          if error.reason != .exists { throw error }
        }
      }
      let won = winners.withLock { $0 }
      #expect(won.count == 1)
      #expect(
        try store.get("race/\(round)", limit: 1 << 20) == [UInt8](repeating: won[0], count: 20_000))
    }
    #expect(try store.names(in: "race").count == 10)
  }

  /// Two never have one lock, whatever the others do to its name.
  func concurrentLocks() throws {
    let store = store
    let inside = Atomic<Int>(0)
    let most = Atomic<Int>(0)
    let taken = Atomic<Int>(0)
    try onWorkers(4, stop: CancellationFlag()) { (_) throws(StrobeError) in
      for _ in 0..<50 {
        guard let lock = try store.lock("crowd/a", note: "one of many") else { continue }
        let count = inside.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
        most.max(count, ordering: .sequentiallyConsistent)
        taken.wrappingAdd(1, ordering: .relaxed)
        inside.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        lock.release()
      }
    }
    #expect(most.load(ordering: .relaxed) == 1)
    #expect(taken.load(ordering: .relaxed) > 0)
    #expect(try store.names(in: "crowd") == [])
  }
}
