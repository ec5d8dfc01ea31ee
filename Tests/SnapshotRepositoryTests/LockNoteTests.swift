import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

@Suite("Who holds locks and objects")
struct LockNoteTests {
  private static let since = Timestamp("2026-11-21T08:15:30.250Z")!

  @Test(
    "A note is read back as it was, whatever the collection is called",
    arguments: [
      nil, "web", "a b", "of", "x of y", " of",
      "web (process 7 on b, since 2026-11-21T08:15:30.250Z)",
      "a, since b", "(", ")", "第一",
    ] as [String?], [nil, "backup1", "a.b-c"] as [String?])
  func roundTrip(collection: String?, host: String?) throws {
    for activity in ["snapshot", "gc", "cleaning up after a killed pass"] {
      let note = LockNote(activity, of: collection, process: 4711, host: host, since: Self.since)
      #expect(LockNote(reading: note.description) == note)
    }
  }

  @Test("A note is a sentence, and says who this process is")
  func sentence() throws {
    let note = LockNote("snapshot", of: "web", process: 7, host: "b1", since: Self.since)
    #expect(
      note.description == "snapshot of web (process 7 on b1, since 2026-11-21T08:15:30.250Z)")
    let mine = LockNote("gc")
    #expect(LockNote(reading: mine.description) == mine)
    #expect(mine.process > 1 && mine.collection == nil && mine.since <= .now)
  }

  @Test(
    "Anything else is no note",
    arguments: [
      "", "gc", "snapshot of web (process 7)", "snapshot (process x, since 2026-11-21T08:15Z)",
      "snapshot (process 7, since then)", "(process 7, since 2026-11-21T08:15Z)",
      " (process 7, since 2026-11-21T08:15Z)", "gc (process 7, since 2026-11-21T08:15Z) ",
      "gc (process 7 at x, since 2026-11-21T08:15Z)", "gc (process -7, since 2026-11-21T08:15Z)",
      "gc (process 7 on a b, since 2026-11-21T08:15Z)", "a (b (process 7, since 2026-11-21T08:15Z)",
    ])
  func others(text: String) { #expect(LockNote(reading: text) == nil) }

  @Test("Every beginning of a note, and a note with any byte flipped, is read without harm")
  func hostile() throws {
    let text = LockNote("snapshot", of: "web", process: 7, host: "b", since: Self.since).description
    for index in text.utf8.indices {
      #expect(LockNote(reading: String(text.prefix(upTo: index))) == nil)
      var bytes = Array(text.utf8)
      bytes[text.utf8.distance(from: text.startIndex, to: index)] ^= 0x40
      // What can still be read stands in the text.
      if let note = LockNote(reading: String(decoding: bytes, as: UTF8.self)) {
        #expect(note.description.hasPrefix(note.activity))
      }
    }
  }

  @Test("The holders of objects are the processes that have them, each once an object")
  func holders() throws {
    let folder = TemporaryDirectory()
    let store = DirectoryStore(folder.file("store"))
    for name in ["a", "b", "c"] { try store.put("room/\(name)", [1], replacing: false) }
    #expect(try store.holders(in: "room") == [])
    #expect(try store.holders(in: "nowhere") == [])
    let marker = folder.file("held")
    let holder = try RunningProcess([
      "python3", "-c",
      """
      import fcntl, sys, time
      files = [open(f"{sys.argv[1]}/{name}") for name in "ab"]
      for file in files: fcntl.flock(file, fcntl.LOCK_SH)
      open(sys.argv[2], "w").close()
      time.sleep(1000)
      """,
      store.path("room"), marker,
    ])
    while try FileFacts(path: marker) == nil { usleep(1000) }
    let mine = try store.hold("room/b")
    let again = try store.hold("room/b")
    let me = Int(getpid())
    let found = try store.holders(in: "room").sorted {
      ($0.name, $0.process ?? 0 == me ? 1 : 0) < ($1.name, $1.process ?? 0 == me ? 1 : 0)
    }
    #expect(found.map(\.name) == ["a", "b", "b"])
    #expect(found.map(\.process) == [Int(holder.id), Int(holder.id), me])
    #expect(found.allSatisfy { !$0.isExclusive })
    mine.release()
    again.release()
    holder.signal(9)
    holder.wait()
    #expect(try store.holders(in: "room") == [])
    _ = try store.removeUnlessHeld("room/c") { () throws(StrobeError) in
      let holders = try store.holders(in: "room")
      #expect(holders.map(\.name) == ["c"] && holders.allSatisfy(\.isExclusive))
    }
  }
}

@Suite("Lines of /proc/locks")
struct FileLockLineTests {
  @Test("Locks that are held by flock are told, with a process that is gone as none")
  func held() throws {
    let folder = TemporaryDirectory()
    let store = DirectoryStore(folder.file("store"))
    try store.put("room/a", [1], replacing: false)
    // flock(1) takes the lock for its parent, and ends.
    let marker = folder.file("held")
    let holder = try RunningProcess([
      "sh", "-c", "exec 8<\"$1\"; flock -s 8 && : >\"$2\"; exec sleep 1000", "sh",
      store.path("room/a"), marker,
    ])
    while try FileFacts(path: marker) == nil { usleep(1000) }
    #expect(
      try store.holders(in: "room") == [ObjectHolder(name: "a", process: nil, isExclusive: false)])
    holder.signal(9)
    holder.wait()
  }
}
