package import ChangeDetection
import Glibc
package import Platform
import Synchronization

// Taking over what interrupted passes stored.
//
// Invariants (with those at the head of `PassJournal.swift`):
// - The caller holds the collection's writer lock from `open` to `remove`, so no pass of these journals is
//   alive and nobody removes a journal meanwhile.
// - A segment is made durable, and what is cached of it dropped, before its first record is read: what is
//   taken over was read from the medium after that.
// - A record is taken over only if it decodes to exactly the chunk that was just read from the disk.

/// The interrupted passes of a collection, newest first.
package final class EarlierPasses: Sendable {
  /// Set in the segment number of a location that was taken over; the rest counts ``segments``. In a
  /// pass's own journal such an entry is no record of its own segments.
  static let takenOver: UInt32 = 1 << 31
  /// Journals that are looked into.
  private static let journalLimit = 32

  private struct Journal {
    let record: JournalRecord
    let place: JournalPlace
    /// The pass's segments, with its own numbers.
    let found: [(number: UInt32, id: ObjectID)]
    /// Places in ``EarlierPasses/segments`` by these numbers.
    var segments: [UInt32: UInt32] = [:]
  }

  private let repository: Repository
  private let places: [JournalPlace]
  private let journals: [Journal]
  /// The segments of all journals.
  private let segments: [ObjectID]
  private let reader: ChunkReader
  private let chunkSize: Int
  /// Whether a segment is durable and has its header; those that were asked for.
  private let prepared = Mutex<[UInt32: Bool]>([:])

  /// Looks for journals of dead passes, and removes those that are of no use.
  ///
  /// - Returns: nil when there are none.
  package static func open(_ repository: Repository, _ collection: CollectionRecord)
    -> EarlierPasses?
  {
    guard let secret = collection.secret,
      let places = try? JournalPlace.all(repository.store, of: collection.name)
    else { return nil }
    removeUnnamed(repository, collection.name)
    var journals: [Journal] = []
    for place in places {
      if let journal = usable(repository, collection, place) { journals.append(journal) }
    }
    guard !journals.isEmpty else { return nil }
    journals.sort { $0.record.created > $1.record.created }
    return EarlierPasses(repository, journals, secret, chunkSize: collection.chunkSize)
  }

  private init(
    _ repository: Repository, _ found: [Journal], _ secret: FingerprintSecret, chunkSize: Int
  ) {
    var segments: [ObjectID] = []
    var journals = Array(found.prefix(Self.journalLimit))
    for index in journals.indices {
      for (number, id) in journals[index].found {
        journals[index].segments[number] = UInt32(segments.count)
        segments.append(id)
      }
    }
    self.repository = repository
    self.journals = journals
    self.segments = segments
    self.chunkSize = chunkSize
    // Also those that are too many to be looked into: what they hold was most likely stored since.
    places = found.map(\.place)
    reader = ChunkReader(repository.store, secret, segments: segments)
  }

  /// What a file system without unnamed files may keep of a process that was killed as it made one.
  private static func removeUnnamed(_ repository: Repository, _ collection: String) {
    let folder = repository.journalFolder(collection)
    for name in (try? namesInDirectory(folder)) ?? [] where name.hasPrefix("unnamed-") {
      try? removeFile("\(folder)/\(name)")
    }
  }

  /// A journal that means something in this collection; any other is removed, and its segments are left
  /// to `gc`.
  private static func usable(
    _ repository: Repository, _ collection: CollectionRecord, _ place: JournalPlace
  ) -> Journal? {
    do throws(StrobeError) {
      let record = try JournalRecord.read(repository.store, place)
      let found = try segments(repository.store, of: place.pass)
      if record.belongs(to: collection, place), !found.isEmpty {
        return Journal(record: record, place: place, found: found)
      }
    } catch {
      // Out of descriptors or memory says nothing of it, and a newer Strobe may know what to do with it.
      guard error.isDamage || error.reason == .notFound else { return nil }
    }
    try? repository.removeJournal(place)
    return nil
  }

  private static func segments(
    _ store: any ObjectStore, of pass: PassID
  ) throws(StrobeError) -> [(number: UInt32, id: ObjectID)] {
    let folder = parentDirectory(pass.object(0).segmentName)
    return try store.names(in: folder).compactMap { name in
      guard let id = ObjectID(name), id.pass == pass else { return nil }
      let number = id.bytes.suffix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      return (number, id)
    }
  }

  /// Whether a location of a pass is in a segment that it took over.
  package static func isTakenOver(_ number: UInt32) -> Bool { number & takenOver != 0 }

  /// The segment that a location of a pass names: one of its `own`, or one that it took over.
  package static func segment(_ number: UInt32, own: [ObjectID], _ earlier: EarlierPasses?)
    -> ObjectID
  {
    guard number & takenOver != 0 else { return own[Int(number)] }
    guard let earlier else { preconditionFailure("taken over from nobody") }
    return earlier.segments[Int(number & ~takenOver)]
  }

  /// What the journals have of a disk; nil when that is nothing.
  package func disk(_ name: String) -> EarlierDisk? {
    var spools: [EarlierDisk.Spool] = []
    for journal in journals {
      guard let index = journal.record.disks.firstIndex(where: { $0.name == name }) else {
        continue
      }
      let path = "\(repository.localFolder)/\(journal.place.spoolName(index))"
      guard let spool = try? PassSpool(reading: path) else { continue }
      spools.append(EarlierDisk.Spool(entries: spool, segments: journal.segments))
    }
    return spools.isEmpty ? nil : EarlierDisk(self, spools, chunkSize: chunkSize)
  }

  /// Reads a record and decodes it.
  ///
  /// - Returns: whether it is what it should be.
  fileprivate func read(
    _ location: ChunkLocation, _ fingerprint: Fingerprint,
    record: UnsafeMutableRawBufferPointer, into content: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard isPrepared(location.segment) else { return false }
    do throws(StrobeError) {
      let segment = try reader.segment(location.segment)
      try unsafe segment.read(at: Int(location.offset), into: record)
      try unsafe reader.decode(
        UnsafeRawBufferPointer(record), at: location, fingerprint: fingerprint, into: content)
      return true
    } catch {
      // Whatever it is: the chunk is stored again.
      return false
    }
  }

  private func isPrepared(_ segment: UInt32) -> Bool {
    prepared.withLock { prepared in
      if let known = prepared[segment] { return known }
      var isWhole = false
      do throws(StrobeError) {
        try repository.store.synchronize(reader.name(ofSegment: segment))
        _ = try reader.segment(segment)
        isWhole = true
      } catch {}
      prepared[segment] = isWhole
      return isWhole
    }
  }

  /// Removes the journals; only after the commit, which names what was taken over.
  ///
  /// - Returns: what went wrong.
  package func remove() -> [StrobeError] {
    var failures: [StrobeError] = []
    for place in places {
      do throws(StrobeError) { try repository.removeJournal(place) } catch {
        failures.append(error)
      }
    }
    return failures
  }
}

/// What interrupted passes stored of one disk.
package final class EarlierDisk: Sendable {
  fileprivate struct Spool {
    let entries: PassSpool
    let segments: [UInt32: UInt32]
  }

  private let passes: EarlierPasses
  private let spools: [Spool]
  private let chunkSize: Int

  fileprivate init(_ passes: EarlierPasses, _ spools: [Spool], chunkSize: Int) {
    self.passes = passes
    self.spools = spools
    self.chunkSize = chunkSize
  }

  /// Where a chunk is stored already.
  ///
  /// - Parameters:
  ///   - content: the chunk as it was just read from the disk.
  ///   - scratch: room for a record and a chunk.
  /// - Returns: a location for the spool of the running pass, or nil: it has to be stored.
  package func find(
    _ content: UnsafeRawBufferPointer, _ position: Int, _ fingerprint: Fingerprint,
    scratch: TakeOverBuffers
  ) -> ChunkLocation? {
    for spool in spools {
      guard let entry = spool.entries.entry(at: position), entry.fingerprint == fingerprint,
        let location = plausible(entry.location, spool.segments)
      else { continue }
      let record = unsafe UnsafeMutableRawBufferPointer(
        rebasing: scratch.record.bytes[..<Int(location.length)])
      let decoded = unsafe UnsafeMutableRawBufferPointer(
        rebasing: scratch.content.bytes[..<content.count])
      if unsafe passes.read(location, fingerprint, record: record, into: decoded),
        unsafe memcmp(decoded.baseAddress!, content.baseAddress!, content.count) == 0
      {
        return location.renumbered(location.segment | EarlierPasses.takenOver)
      }
    }
    return nil
  }

  /// A location whose segment is there and whose numbers can be worked with; the segment counts those of all
  /// journals.
  private func plausible(_ location: ChunkLocation, _ segments: [UInt32: UInt32]) -> ChunkLocation?
  {
    guard let segment = segments[location.segment],
      location.length > SegmentFormat.recordHeaderSize,
      Int(location.length) <= SegmentFormat.recordHeaderSize + chunkSize,
      location.offset >= SegmentFormat.headerSize, location.offset <= UInt64(Int.max) >> 8
    else { return nil }
    return location.renumbered(segment)
  }
}

/// Memory in which one worker checks what it takes over: a record and a chunk.
package final class TakeOverBuffers {
  fileprivate let record: AlignedBuffer
  fileprivate let content: AlignedBuffer

  package init(chunkSize: Int) {
    record = AlignedBuffer(count: SegmentFormat.recordHeaderSize + chunkSize)
    content = AlignedBuffer(count: chunkSize)
  }
}
