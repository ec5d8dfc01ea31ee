import Glibc
import Platform
import Synchronization
import Testing

@Suite("Workers")
struct WorkersTests {
  /// Does nothing until it is told to stop.
  private static func idle(_ stop: CancellationFlag) throws(StrobeError) {
    while true {
      try stop.check()
      sched_yield()
    }
  }

  @Test("Every index runs once, and all have ended afterwards", arguments: [1, 2, 3, 8, 32])
  func everyIndex(count: Int) throws {
    let ended = Mutex<[Int]>([])
    try onWorkers(count, stop: CancellationFlag()) { index in
      for _ in 0..<index { sched_yield() }
      ended.withLock { $0.append(index) }
    }
    #expect(ended.withLock { $0.sorted() } == Array(0..<count))
  }

  @Test("Workers run at the same time, not one after another")
  func concurrent() throws {
    let arrived = Atomic<Int>(0)
    try onWorkers(4, stop: CancellationFlag()) { _ in
      arrived.wrappingAdd(1, ordering: .sequentiallyConsistent)
      while arrived.load(ordering: .sequentiallyConsistent) < 4 { sched_yield() }
    }
    let count = arrived.load(ordering: .sequentiallyConsistent)
    #expect(count == 4)
  }

  @Test("An error of any worker stops the others and is the one that is thrown", arguments: 0..<4)
  func firstError(failing: Int) throws {
    let stop = CancellationFlag()
    let error = #expect(throws: StrobeError.self) {
      try onWorkers(4, stop: stop) { index throws(StrobeError) in
        if index == failing { throw StrobeError(.exists, "worker \(index)") }
        try Self.idle(stop)
      }
    }
    #expect(error?.reason == .exists)
    #expect(error?.message == "worker \(failing)")
  }

  @Test("Of two errors the first is thrown")
  func order() throws {
    let stop = CancellationFlag()
    let error = #expect(throws: StrobeError.self) {
      try onWorkers(2, stop: stop) { index throws(StrobeError) in
        if index == 0 { throw StrobeError(.exists, "first") }
        // Told to stop means that the first error was kept.
        do throws(StrobeError) { try Self.idle(stop) } catch { throw StrobeError(.busy, "second") }
      }
    }
    #expect(error?.message == "first")
  }

  @Test("A real error that comes after a cancellation is the one that is thrown")
  func errorBeatsCancellation() throws {
    let stop = CancellationFlag()
    let error = #expect(throws: StrobeError.self) {
      try onWorkers(2, stop: stop) { index throws(StrobeError) in
        if index == 0 { throw .cancelled }
        do throws(StrobeError) { try Self.idle(stop) } catch { throw StrobeError(.busy, "real") }
      }
    }
    #expect(error?.message == "real")
  }

  @Test(
    "A cancellation reaches all workers, also when it came before they began",
    arguments: [true, false])
  func cancellation(before: Bool) throws {
    let stop = CancellationFlag()
    if before { stop.cancel() }
    let error = #expect(throws: StrobeError.self) {
      try onWorkers(3, stop: stop) { index throws(StrobeError) in
        if index == 2 { stop.cancel() }
        try Self.idle(stop)
      }
    }
    #expect(error?.reason == .cancelled)
    #expect(stop.isCancelled)
    #expect(throws: StrobeError.self) { try stop.check() }
  }

  @Test("A flag set elsewhere, such as by a signal handler, cancels as well")
  func external() throws {
    let signalled = Mutex(false)
    let stop = CancellationFlag(external: { signalled.withLock { $0 } })
    try stop.check()
    #expect(!stop.isCancelled)
    signalled.withLock { $0 = true }
    #expect(stop.isCancelled)
    #expect(throws: StrobeError.self) { try stop.check() }
  }

  @Test("After an error the same flag serves the next pass")
  func reuse() throws {
    let stop = CancellationFlag()
    #expect(throws: StrobeError.self) {
      try onWorkers(2, stop: stop) { _ throws(StrobeError) in throw StrobeError(.exists, "") }
    }
    try stop.check()
    try onWorkers(2, stop: stop) { _ throws(StrobeError) in try stop.check() }
  }

  @Test("Background work has ended when it was waited for")
  func background() throws {
    let done = Atomic<Bool>(false)
    let wait = try #require(inBackground { done.store(true, ordering: .sequentiallyConsistent) })
    wait()
    let isDone = done.load(ordering: .sequentiallyConsistent)
    #expect(isDone)
  }

  @Test("Progress adds up whoever reports it")
  func progress() throws {
    let progress = Progress()
    progress.expect(4000)
    try onWorkers(4, stop: CancellationFlag()) { _ in
      for _ in 0..<1000 { progress.add(done: 1, transferred: 2, stored: 3) }
    }
    let total = progress.totalBytes.load(ordering: .relaxed)
    let done = progress.doneBytes.load(ordering: .relaxed)
    let stored = progress.storedBytes.load(ordering: .relaxed)
    #expect([total, done, progress.transferred, stored] == [4000, 4000, 8000, 12_000])
  }
}
