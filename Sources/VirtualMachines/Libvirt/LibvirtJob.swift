import Glibc
import Platform
import Synchronization

/// A backup job of libvirt's, from its beginning to its end: watched, so that it never keeps the guest stopped.
///
/// QEMU copies what the guest overwrites to the scratch images first. When they can't grow any more, it stops
/// the guest (`on-cbw-error`, which libvirt doesn't set, exists since QEMU 10.1). Then the job is ended and the
/// guest goes on; what is read of the exports since is worth nothing.
final class LibvirtJob: Sendable {
  /// How long libvirt may take to end a job. While one runs, each end and beginning of the agent's connection, as
  /// when the guest reboots, keeps its one thread for events waiting for half a minute, and the job's end behind it
  /// (seen in 9.0: `processSerialChangedEvent` wants a job that a backup doesn't let in).
  private static let endSeconds = 150
  private static let watchMilliseconds = 500

  private let domain: LibvirtHandle
  private let name: String
  let socket: String
  /// Whether the guest was stopped before the job was there.
  private let wasStopped: Bool
  /// Why the exports aren't the instant any more; calls that end the job wait for each other.
  private let loss = Mutex<String?>(nil)
  private let isOver = Atomic<Bool>(false)
  private let watcher = Mutex<(@Sendable () -> Void)?>(nil)

  /// - Parameters:
  ///   - name: the domain's, for messages.
  ///   - mayResume: whether the guest may be let go on although it was stopped before.
  init(
    _ domain: LibvirtHandle, name: String, socket: String, mayResume: Bool = false
  ) throws(LibvirtError) {
    self.domain = domain
    self.name = name
    self.socket = socket
    let isStopped = try domain.state() == .stoppedByIOError
    wasStopped = isStopped && !mayResume
  }

  func begin(_ documents: BackupDocuments) throws(LibvirtError) {
    try domain.beginBackup(documents.backup, checkpoint: documents.checkpointDocument)
  }

  /// Looks after the guest until the job is over.
  func watch() {
    guard let end = inBackground({ self.lookUntilOver() }) else { return }
    watcher.withLock { [end = SendableEnd(end)] in $0 = { end.wait() } }
  }

  private func lookUntilOver() {
    while !isOver.load(ordering: .acquiring) {
      // A libvirt that doesn't answer now may answer again, and then the guest may have been stopped.
      _ = failure()
      if loss.withLock({ $0 != nil }) { return }
      var left = Self.watchMilliseconds
      while left > 0, !isOver.load(ordering: .acquiring) {
        usleep(50_000)
        left -= 50
      }
    }
  }

  /// Leaves the guest alone, and the job as it is.
  func stopWatching() { isOver.store(true, ordering: .releasing) }

  /// Why the exports aren't the instant of the job's beginning any more; nil: they are.
  func failure() -> String? {
    loss.withLock { loss in
      if let loss { return loss }
      if isOver.load(ordering: .acquiring) { return nil }
      do throws(LibvirtError) {
        loss = try look()
      } catch {
        // It may be able to answer again.
        return "libvirt doesn't say how domain \(name) does: \(error.message)"
      }
      return loss
    }
  }

  private func look() throws(LibvirtError) -> String? {
    let state = try domain.state()
    if state == .off { return "domain \(name) has ended" }
    if state == .stoppedByIOError && !wasStopped {
      try endJob()
      return "the guest was stopped because a disk or the scratch space could not be written (is "
        + "\(parentDirectory(parentDirectory(socket))) full?); the backup job was ended for it to go on"
    }
    return try isThere() ? nil : "the backup job of domain \(name) has ended"
  }

  private func isThere() throws(LibvirtError) -> Bool {
    guard let backup = try domain.backup() else { return false }
    return BackupDocuments.socket(of: backup) == socket
  }

  /// Ends the job and waits for that, and for the watcher. May be called again.
  func end() throws(LibvirtError) {
    isOver.store(true, ordering: .releasing)
    let watcher = watcher.withLock { watcher in
      defer { watcher = nil }
      return watcher
    }
    watcher?()
    let result = loss.withLock { _ -> LibvirtError? in
      do throws(LibvirtError) {
        try endJob()
        return nil
      } catch {
        return error
      }
    }
    if let result { throw result }
  }

  private func endJob() throws(LibvirtError) {
    if try isThere() {
      do throws(LibvirtError) {
        try domain.abortJob()
      } catch {
        // It may have ended by itself.
        if try isThere() { throw error }
      }
      let deadline = monotonicMilliseconds() + Self.endSeconds * 1000
      while try isThere() {
        guard monotonicMilliseconds() < deadline else {
          throw LibvirtError(timedOut: "virDomainAbortJob", "the backup job doesn't end")
        }
        usleep(5000)
      }
    }
    if !wasStopped, try domain.state() == .stoppedByIOError {
      try domain.resume()
    }
  }
}

/// The wait for a thread's end, which may be had on another thread than the one that started it.
private final class SendableEnd: @unchecked Sendable {
  // Sendable: pthread_join(3) may be called on any thread, and is called once.
  private let end: () -> Void
  init(_ end: @escaping () -> Void) { self.end = end }
  func wait() { end() }
}
