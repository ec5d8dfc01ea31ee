import Glibc
public import Platform
public import SnapshotRepository

/// Who works with a repository at this moment.
public struct RepositoryStatus: Sendable {
  /// A lock that a live process holds.
  public struct Work: Sendable {
    /// The lock's name: `writer-web`, `pass-…`, `commit-…`, `gc`.
    public let lock: String
    /// `snapshot`, `gc`, …; what the holder noted as it stands when that can't be told apart.
    public let activity: String
    public let collection: String?
    public let process: Int?
    public let host: String?
    public let since: Timestamp?
  }

  /// A process that holds a restore point: restores, verifies, shows or continues it.
  public struct Reader: Sendable {
    public let collection: String
    /// 24 hexadecimal digits.
    public let point: String
    /// Nil when it runs where this process can't see it.
    public let process: Int?
    /// The program's name, and how it was called; nil when they can't be known.
    public let program: String?
    public let command: String?
    /// It is deleting the point.
    public let isDeleting: Bool
  }

  /// The lock of a process that died.
  public struct Leftover: Sendable {
    public let lock: String
    /// What its holder noted.
    public let note: String
    /// Who cleans up; never a person.
    public let cleanedUpBy: String
  }

  public let work: [Work]
  public let readers: [Reader]
  public let leftovers: [Leftover]
}

extension SnapshotEngine {
  /// Who works with the repository now, and what processes that were killed have left.
  ///
  /// Readers are those of this machine. What begins or ends meanwhile may be missing.
  public func status() throws(StrobeError) -> RepositoryStatus {
    var work: [RepositoryStatus.Work] = []
    var leftovers: [RepositoryStatus.Leftover] = []
    for name in try repository.store.names(in: "locks").sorted() {
      if let note = try repository.store.holder(ofLock: "locks/\(name)") {
        work.append(.init(lock: name, note: note))
      } else if let leftover = try leftover(name) {
        leftovers.append(leftover)
      }
    }
    return RepositoryStatus(work: work, readers: try readers(), leftovers: leftovers)
  }

  private func leftover(_ name: String) throws(StrobeError) -> RepositoryStatus.Leftover? {
    let object = "locks/\(name)"
    // A holder may have let go, or may have made the file and not locked it yet.
    usleep(20_000)
    do throws(StrobeError) {
      let note = String(decoding: try repository.store.get(object, limit: 1 << 16), as: UTF8.self)
      guard try repository.store.holder(ofLock: object) == nil,
        try repository.store.exists(object)
      else { return nil }
      return .init(lock: name, note: note, cleanedUpBy: name == "gc" ? "gc" : "snapshot")
    } catch {
      if error.reason == .notFound { return nil }
      throw error
    }
  }

  private func readers() throws(StrobeError) -> [RepositoryStatus.Reader] {
    guard let store = repository.store as? DirectoryStore else { return [] }
    var readers: [RepositoryStatus.Reader] = []
    for collection in try repository.collections() {
      for holder in try store.holders(in: "collections/\(collection)")
      where holder.name.hasSuffix(".json") && PassID(holder.name.dropLast(5)) != nil {
        readers.append(
          .init(
            collection: collection, point: String(holder.name.dropLast(5)),
            process: holder.process,
            program: holder.process.flatMap { readText("/proc/\($0)/comm") },
            command: holder.process.flatMap(Self.commandLine), isDeleting: holder.isExclusive))
      }
    }
    return readers
  }

  /// The words of a process's command line with blanks between; nil when it has none.
  private static func commandLine(_ process: Int) -> String? {
    guard let bytes = try? readFile("/proc/\(process)/cmdline", limit: 16 << 20) else { return nil }
    let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    return words.isEmpty ? nil : words.joined(separator: " ")
  }
}

extension RepositoryStatus.Work {
  fileprivate init(lock: String, note text: String) {
    let note = LockNote(reading: text)
    let writer = "writer-"
    self.init(
      lock: lock, activity: note?.activity ?? text,
      collection: note?.collection
        ?? (lock.hasPrefix(writer) ? String(lock.dropFirst(writer.count)) : nil),
      process: note?.process, host: note?.host, since: note?.since)
  }
}
