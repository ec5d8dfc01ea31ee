package import ChangeDetection
import Glibc
package import Platform

/// A repository: an object store with a configuration, and a local folder for journals and caches.
package struct Repository: Sendable {
  package struct Configuration: Codable, Sendable {
    let format: Int
    /// 24 hexadecimal digits.
    package let id: String
    package let created: Timestamp
    /// Bytes; what new collections get.
    package let defaultChunkSize: Int
    /// What new collections get, a ``FingerprintKind``; nil: `xxh3-128`.
    let defaultFingerprint: String?
  }

  /// How new collections make their fingerprints.
  package var defaultFingerprint: FingerprintKind {
    configuration.defaultFingerprint.flatMap { FingerprintKind(rawValue: $0) } ?? .xxh3
  }

  package let store: any ObjectStore
  package let configuration: Configuration
  /// Where what is not part of the repository is kept: journals and caches.
  package let localFolder: String

  private static let configurationName = "config.json"
  private static let rooms = ["collections", "layers", "segments"]

  /// Makes a repository in a directory that is empty or does not exist.
  ///
  /// - Parameter repairing: write a configuration into a repository that lost its own.
  package static func create(
    at path: String, defaultChunkSize: Int, defaultFingerprint: FingerprintKind = .xxh3,
    repairing: Bool = false
  ) throws(StrobeError) -> Repository {
    guard ChunkGeometry.isValid(chunkSize: defaultChunkSize) else {
      throw invalidChunkSize(defaultChunkSize)
    }
    let store = DirectoryStore(path)
    try checkPlace(path, store, repairing: repairing)
    try makeDirectories(path)
    for room in rooms { try makeDirectories(path + "/" + room) }
    let configuration = Configuration(
      format: Document.format, id: PassID().description, created: .now,
      defaultChunkSize: defaultChunkSize,
      defaultFingerprint: defaultFingerprint == .xxh3 ? nil : defaultFingerprint.rawValue)
    // Last, so that a directory with a configuration is a whole repository.
    try store.put(configurationName, Document.encode(configuration), replacing: repairing)
    return Repository(store: store, configuration: configuration, localFolder: path)
  }

  package static func invalidChunkSize(_ size: Int) -> StrobeError {
    StrobeError(
      .usage, "chunk size \(size) is not a power of two from 4 KiB to 4 MiB",
      advice: "64KiB suits most disks")
  }

  private static func checkPlace(
    _ path: String, _ store: DirectoryStore, repairing: Bool
  ) throws(StrobeError) {
    guard let facts = try FileFacts(path: path) else { return }
    guard facts.isDirectory else {
      throw StrobeError(.usage, "\(path) is not a directory", advice: "choose another place")
    }
    let names = try namesInDirectory(path).filter { $0 != "lost+found" && !$0.hasPrefix(".tmp-") }
    if repairing {
      guard rooms.allSatisfy(names.contains) else {
        throw StrobeError(
          .usage, "\(path) has no repository to repair", advice: "run init without --repair")
      }
      do throws(StrobeError) {
        _ = try open(at: path)
      } catch {
        // What a newer Strobe wrote is whole: only what is lost or damaged is written again.
        guard error.isDamage || error.reason == .notFound else { throw error }
        return
      }
      throw StrobeError(.exists, "the repository at \(path) needs no repair")
    }
    if names.contains(configurationName) {
      throw StrobeError(.exists, "\(path) is a repository already", advice: "use it as it is")
    }
    // An init that was cut off left empty rooms: it may be run again.
    let others = names.filter { !rooms.contains($0) }
    let filled = rooms.contains { !((try? store.names(in: $0)) ?? []).isEmpty }
    guard others.isEmpty, !filled else {
      throw StrobeError(
        .refused, "\(path) is not empty",
        advice: filled
          ? "if its config.json was lost, run: strobe init --repair" : "choose an empty directory")
    }
  }

  /// Opens the repository in a directory.
  package static func open(at path: String) throws(StrobeError) -> Repository {
    let store = DirectoryStore(path)
    guard let facts = try FileFacts(path: path) else {
      throw StrobeError(
        .notFound, "there is no repository at \(path)",
        advice: "is its file system mounted? for a new one: strobe init --repository \(path)")
    }
    guard facts.isDirectory else {
      throw StrobeError(.usage, "\(path) is not a directory, so it is no repository")
    }
    do throws(StrobeError) {
      let bytes = try store.get(configurationName, limit: Document.sizeLimit)
      let configuration = try Document.decode(Configuration.self, bytes, name: configurationName)
      guard ChunkGeometry.isValid(chunkSize: configuration.defaultChunkSize) else {
        throw .damaged(
          configurationName, expected: "a chunk size", found: "\(configuration.defaultChunkSize)")
      }
      if let kind = configuration.defaultFingerprint, FingerprintKind(rawValue: kind) == nil {
        throw .damaged(configurationName, expected: "a kind of fingerprint", found: kind)
      }
      return Repository(store: store, configuration: configuration, localFolder: path)
    } catch {
      throw explained(error, path, store)
    }
  }

  private static func explained(
    _ error: StrobeError, _ path: String, _ store: DirectoryStore
  ) -> StrobeError {
    let hasRooms = rooms.allSatisfy { (try? FileFacts(path: path + "/" + $0)) ?? nil != nil }
    if error.reason == .notFound {
      return StrobeError(
        .notFound, "\(path) is not a repository: it has no config.json",
        advice: hasRooms
          ? "if it was one, run: strobe init --repair --repository \(path)"
          : "is its file system mounted? for a new one: strobe init with an empty directory")
    }
    guard error.isDamage else { return error }
    return error.explained(
      "\(path)/\(error.message)",
      advice:
        "the restore points don't depend on it; run: strobe init --repair --repository \(path)")
  }

  /// The folder of a collection's journals: spools of unfinished passes.
  package func journalFolder(_ collection: String) -> String {
    "\(localFolder)/journal/\(collection)"
  }

  /// The folder of a collection's caches; it may be deleted at any time.
  package func cacheFolder(_ collection: String) -> String { "\(localFolder)/cache/\(collection)" }

  package func fingerprintTablePath(_ collection: String, disk: String) -> String {
    "\(cacheFolder(collection))/\(disk).fingerprints"
  }

  /// How often the lock is asked for again while upkeep has it: for a minute.
  private static let upkeepPatience = 600

  /// Takes the place of the one writer of a collection.
  package func lockWriter(of collection: String, note: String) throws(StrobeError) -> any StoreLock
  {
    let name = "locks/writer-\(collection)"
    for _ in 0..<Self.upkeepPatience {
      if let lock = try store.lock(name, note: note) { return lock }
      // gc has it for moments only.
      guard try store.holder(ofLock: name)?.hasPrefix("gc ") == true else { break }
    }
    if let lock = try store.lock(name, note: note) { return lock }
    let holder = try store.holder(ofLock: name) ?? "another process"
    throw StrobeError(
      .busy, "collection \(collection) is being written to by \(holder)",
      advice: "wait for it and try again")
  }
}
