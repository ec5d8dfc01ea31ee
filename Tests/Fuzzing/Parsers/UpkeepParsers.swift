import ChangeDetection
import Platform

@testable import SnapshotRepository

// Documents of upkeep: repairs, what was verified, journals, protections.

extension FuzzedParser {
  static let repairs = FuzzedParser("repairs") { input in
    let bytes = document(input)
    let segment = ObjectID([UInt8](repeating: 7, count: ObjectID.byteCount))!
    let store = MemoryStore([Repairs.objectName(segment): bytes])
    guard let read = (try? Repairs.read(store, segment)) ?? nil else { return }
    for replacement in read.replacements {
      require(
        read.replacement(at: UInt64(replacement.damagedOffset)) == replacement,
        "a replacement is found by its offset")
      require(read.targets.contains(replacement.segment), "its segment is needed")
    }
    require(read.replacement(at: UInt64(Int.max)) == nil, "nothing is found that isn't there")
    let again = MemoryStore()
    guard (try? read.write(again, segment)) != nil else { fatalError("doesn't hold: writing") }
    require(((try? Repairs.read(again, segment)) ?? nil) == read, "repairs read back")
  }

  static let verification = FuzzedParser("verification") { input in
    let name = VerificationRecord.objectName("web")
    let store = MemoryStore([name: document(input)])
    guard let read = try? VerificationRecord.read(store, "web") else { return }
    for damage in read.damage {
      require(damage.fingerprint.description.count == 32, "a fingerprint is read")
      require(damage.contentLength > 0 && damage.location.length > 0, "sizes make sense")
      _ = damage.segment.segmentName
    }
    store.replace(name, Document.encode(read))
    let again = try? VerificationRecord.read(store, "web")
    require(
      again.map { Document.encode($0) } == Document.encode(read), "what was verified reads back")
  }

  static let journal = FuzzedParser("journal") { input in
    let bytes = document(input)
    guard let read = try? Document.decode(JournalRecord.self, bytes, name: "journal") else {
      return
    }
    let again = try? Document.decode(
      JournalRecord.self, Document.encode(read), name: "again")
    require(again.map { Document.encode($0) } == Document.encode(read), "a journal reads back")
  }

  static let protection = FuzzedParser("protection") { input in
    let id = "0123456789abcdef01234567"
    let store = MemoryStore([PointProtection.objectName("web", id): document(input)])
    guard let read = (try? PointProtection.read(store, "web", id)) ?? nil else { return }
    let again = try? Document.decode(
      PointProtection.self, Document.encode(read), name: "again")
    // Times are written in milliseconds.
    require(again.map { Document.encode($0) } == Document.encode(read), "a protection reads back")
  }
}
