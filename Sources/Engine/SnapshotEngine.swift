import BlockDevices
public import ChangeDetection
import Glibc
public import Platform
import SnapshotRepository

/// Everything that Strobe does with one repository.
///
/// An engine holds no state but the repository's place: it may be used from several threads, and
/// several engines and processes may use one repository at once. Methods block the calling thread; run
/// them off Swift's cooperative pool.
///
/// ```swift
/// let engine = try SnapshotEngine(repository: "/srv/strobe")
/// var options = SnapshotOptions()
/// options.disks = [.init(name: "os", path: "/dev/vg/os")]
/// let report = try engine.snapshot("web", options)
/// try engine.restore("web@latest", [.init(disk: "os", path: "/dev/vg/new")])
/// ```
public final class SnapshotEngine: Sendable {
  let repository: Repository

  /// Opens the repository at `path`.
  ///
  /// - Throws: `notFound` when there is none, `damaged` or `newerVersion` when it can't be used.
  public init(repository path: String) throws(StrobeError) {
    repository = try Repository.open(at: absolutePath(path))
  }

  private init(_ repository: Repository) { self.repository = repository }

  /// Makes a repository in a directory that is empty or does not exist.
  ///
  /// - Parameters:
  ///   - chunkSize: bytes; a power of two from 4 KiB to 4 MiB; what new collections get.
  ///   - fingerprint: how new collections tell contents apart; XXH3 costs least, SHA-256 convinces more.
  ///   - repairing: write a new `config.json` into a repository that lost its own.
  public static func create(
    at path: String, chunkSize: Int = 64 << 10, fingerprint: FingerprintKind = .xxh3,
    repairing: Bool = false
  ) throws(StrobeError) -> SnapshotEngine {
    SnapshotEngine(
      try Repository.create(
        at: absolutePath(path), defaultChunkSize: chunkSize, defaultFingerprint: fingerprint,
        repairing: repairing))
  }

  /// The directory of the repository.
  public var location: String { repository.store.location }
  /// The identity of the repository: 24 hexadecimal digits.
  public var repositoryID: String { repository.configuration.id }
  /// Bytes; what new collections get.
  public var defaultChunkSize: Int { repository.configuration.defaultChunkSize }
  /// How new collections make their fingerprints.
  public var defaultFingerprint: FingerprintKind { repository.defaultFingerprint }

  /// Adds a restore point to a collection, which is made when it does not exist.
  ///
  /// What an interrupted snapshot of the collection stored is read back, checked, and not stored again.
  ///
  /// The disks are those that the collection remembers, changed by `options`. Each is read, whole or
  /// where a tracker saw writes, and brought to one instant with the others; only what differs from the
  /// parent point is stored; all disks are committed together or none.
  ///
  /// - Parameters:
  ///   - collection: at most 128 bytes, no `/`, `@`, `=`, `:` and control characters.
  ///   - progress: raised while the pass runs; bytes.
  ///   - stop: looked at between requests.
  /// - Throws: `usage` and `notFound` for bad names and sources, `busy` when another snapshot of the
  ///   collection runs, `system` for read errors and full stores, `cancelled`.
  public func snapshot(
    _ collection: String, _ options: SnapshotOptions = SnapshotOptions(),
    progress: Progress = Progress(), stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> SnapshotReport {
    let start = monotonicSeconds()
    try Names.check(collection, "collection")
    let writer = try repository.lockWriter(
      of: collection, note: LockNote("snapshot", of: collection).description)
    defer { writer.release() }
    try PassRegistration.sweep(repository.store)
    let session = try CollectionSession(repository, collection, options, stop: stop)
    defer { session.release() }
    let outcome = try session.run(progress: progress, stop: stop)
    return SnapshotReport(
      point: outcome.point, isWeaker: outcome.isWeaker, adoptedBytes: outcome.adoptedBytes,
      warnings: session.warnings + outcome.warnings, healedChunks: outcome.healedChunks,
      seconds: monotonicSeconds() - start)
  }
}

func monotonicSeconds() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
