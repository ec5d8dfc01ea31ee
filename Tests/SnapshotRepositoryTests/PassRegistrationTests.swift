import Platform
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("A registered pass")
struct PassRegistrationTests {
  private let test: TestRepository
  private var store: any ObjectStore { test.store }

  init() throws { test = try TestRepository() }

  /// A layer and a segment of a pass.
  private func leaveObjects(_ pass: PassID) throws -> Set<String> {
    let names = [pass.object(0).layerName, pass.object(7).segmentName]
    for name in names { try store.put(name, [1], replacing: false) }
    return Set(names)
  }

  @Test("that is dead is swept with its objects; nobody else's go")
  func dead() throws {
    let dead = PassID()
    let stranger = PassID()
    let gone = try leaveObjects(dead)
    let kept = try leaveObjects(stranger)
    try store.put("locks/pass-\(dead)", [], replacing: false)
    #expect(try PassRegistration.isAlive(store, dead) == false)
    #expect(try test.objects() == gone.union(kept))
    #expect(try PassRegistration.sweep(store) == 2)
    #expect(try test.objects() == kept)
    #expect(try store.names(in: "locks") == [])
  }

  @Test("that is alive keeps its objects, before and after it says that it commits")
  func alive() throws {
    let pass = PassID()
    let lock = try PassRegistration.begin(store, pass, note: "test")
    let kept = try leaveObjects(pass)
    #expect(try PassRegistration.isAlive(store, pass))
    #expect(try PassRegistration.sweep(store) == 0)
    try PassRegistration.beginCommit(store, pass, lock)
    #expect(try PassRegistration.isAlive(store, pass))
    #expect(try PassRegistration.sweep(store) == 0)
    #expect(try test.objects() == kept)
    lock.release()
    #expect(try PassRegistration.isAlive(store, pass) == false)
    #expect(try PassRegistration.sweep(store) == 0)
    #expect(try test.objects() == kept, "a pass that ended is no dead one")
  }

  @Test("whose old name came back beside its point loses nothing: after a power cut, or in a copy")
  func staleName() throws {
    var collection = try TestCollection(test.repository)
    try collection.add([("a", ModelDisk(size: 8192, [0: 1, 1: 2]))], keyframe: false)
    try collection.add([("a", ModelDisk(size: 8192, [0: 1, 1: 3]))], keyframe: false)
    let before = try test.objects()
    let first = collection.points[0].id
    try store.put("locks/pass-\(first)", [], replacing: false)
    #expect(try PassRegistration.sweep(store) == 0)
    #expect(try test.objects() == before)
    // Also when the point itself is gone and only a later one needs what it stored.
    try store.put("locks/pass-\(first)", [], replacing: false)
    try test.repository.delete("web", first)
    try PassRegistration.sweep(store)
    #expect(
      try restore(test.repository, collection.points[1], "a")
        == ModelDisk(size: 8192, [0: 1, 1: 3]).bytes)
  }

  @Test("that died while it committed keeps its objects: its point may be there")
  func deadCommit() throws {
    let pass = PassID()
    let kept = try leaveObjects(pass)
    try store.put("locks/commit-\(pass)", [], replacing: false)
    #expect(try PassRegistration.sweep(store) == 0)
    #expect(try test.objects() == kept)
    #expect(try store.names(in: "locks") == [])
  }

  @Test("that dies with its process is swept")
  func killed() throws {
    let pass = PassID()
    _ = try leaveObjects(pass)
    try store.put("locks/pass-\(pass)", [], replacing: false)
    let file = test.path("locks/pass-\(pass)")
    let marker = test.folder.file("held")
    let process = try RunningProcess(
      ["sh", "-c", "exec 9<\"$1\"; flock -n 9 && : >\"$2\"; exec sleep 1000", "sh", file, marker])
    while try FileFacts(path: marker) == nil {}
    #expect(try PassRegistration.isAlive(store, pass))
    #expect(try PassRegistration.sweep(store) == 0)
    process.signal(9)
    process.wait()
    #expect(try PassRegistration.sweep(store) == 2)
  }

  @Test("can't be registered twice, and other files among the locks are left alone")
  func others() throws {
    let pass = PassID()
    let lock = try PassRegistration.begin(store, pass, note: "test")
    #expect(throws: StrobeError.self) { _ = try PassRegistration.begin(store, pass, note: "again") }
    lock.release()
    for name in ["pass-", "pass-xyz", "commit-12", "writer-web", "notes"] {
      try store.put("locks/\(name)", [], replacing: false)
    }
    #expect(try PassRegistration.sweep(store) == 0)
    #expect(try store.names(in: "locks").count == 5)
  }

  @Test("commits beside sweeps without losing an object")
  func sweepsBesideCommits() throws {
    let store = store
    let kept = Mutex<Set<String>>([])
    let running = Atomic<Int>(2)
    try onWorkers(4, stop: CancellationFlag()) { (worker) throws(StrobeError) in
      guard worker < 2 else {
        while running.load(ordering: .relaxed) > 0 { try PassRegistration.sweep(store) }
        return
      }
      defer { running.wrappingSubtract(1, ordering: .relaxed) }
      for _ in 0..<150 {
        let pass = PassID()
        let lock = try PassRegistration.begin(store, pass, note: "worker \(worker)")
        try store.put(pass.object(0).layerName, [1], replacing: false)
        kept.withLock { _ = $0.insert(pass.object(0).layerName) }
        try PassRegistration.beginCommit(store, pass, lock)
        lock.release()
      }
    }
    #expect(try test.objects() == kept.withLock { $0 })
    #expect(try store.names(in: "locks") == [])
  }
}
