import CLibvirt
import Glibc
import Platform

/// What can be asked of a domain of libvirt, and done to it: one call each.
@safe final class LibvirtHandle: Sendable {
  enum State: Sendable {
    case off, running, paused
    /// Paused because a disk could not be written.
    case stoppedByIOError
  }

  let connection: LibvirtConnection
  nonisolated(unsafe) private let domain: OpaquePointer

  /// - Parameter domain: a name or a UUID.
  /// - Throws: `notFound` when there is none.
  init(_ connection: LibvirtConnection, domain name: String) throws(StrobeError) {
    self.connection = connection
    if Self.isUUID(name), let found = unsafe clibvirt_domain_by_uuid(connection.handle, name) {
      unsafe domain = found
      return
    }
    guard let found = unsafe clibvirt_domain_by_name(connection.handle, name) else {
      let error = LibvirtError(last: "virDomainLookupByName")
      guard error.code == clibvirt_ERR_NO_DOMAIN else { throw error.about("domain \(name)") }
      throw StrobeError(
        .notFound, "libvirt at \(connection.uri) has no domain \(name)",
        advice: "`virsh -c '\(connection.uri)' list --all` lists them")
    }
    unsafe domain = found
  }

  deinit { unsafe clibvirt_domain_free(domain) }

  private static func isUUID(_ text: String) -> Bool {
    text.utf8.count == 36 && text.allSatisfy { $0.isHexDigit || $0 == "-" }
  }

  func name() throws(LibvirtError) -> String {
    try unsafe libvirtText("virDomainGetName") { unsafe clibvirt_domain_name(domain) }
  }

  func uuid() throws(LibvirtError) -> String {
    try unsafe libvirtText("virDomainGetUUIDString") { unsafe clibvirt_domain_uuid(domain) }
  }

  /// Without secrets.
  func xml(inactive: Bool) throws(LibvirtError) -> String {
    try unsafe libvirtText("virDomainGetXMLDesc") {
      unsafe clibvirt_domain_xml(domain, inactive ? 1 : 0)
    }
  }

  func state() throws(LibvirtError) -> State {
    let state = try libvirt("virDomainGetState") { unsafe clibvirt_domain_state(domain) }
    return switch state {
    case clibvirt_STATE_OFF: .off
    case clibvirt_STATE_PAUSED: .paused
    case clibvirt_STATE_IO_ERROR: .stoppedByIOError
    default: .running
    }
  }

  func resume() throws(LibvirtError) {
    try libvirt("virDomainResume") { unsafe clibvirt_domain_resume(domain) }
  }

  /// Bytes.
  func size(ofDisk target: String) throws(LibvirtError) -> Int {
    var bytes: UInt64 = 0
    try libvirt("virDomainGetBlockInfo") { unsafe clibvirt_disk_size(domain, target, &bytes) }
    return Int(clamping: bytes)
  }

  func beginBackup(_ backup: String, checkpoint: String?) throws(LibvirtError) {
    try libvirt("virDomainBackupBegin") {
      unsafe clibvirt_backup_begin(domain, backup, checkpoint)
    }
  }

  /// - Returns: nil when no backup job runs.
  func backup() throws(LibvirtError) -> String? {
    do throws(LibvirtError) {
      return try unsafe libvirtText("virDomainBackupGetXMLDesc") {
        unsafe clibvirt_backup_xml(domain)
      }
    } catch {
      if error.code == clibvirt_ERR_NO_DOMAIN_BACKUP { return nil }
      throw error
    }
  }

  /// Whether a job of any kind runs: a backup, a migration, a dump.
  func hasJob() throws(LibvirtError) -> Bool {
    try libvirt("virDomainGetJobInfo") { unsafe clibvirt_job_runs(domain) } == 1
  }

  func abortJob() throws(LibvirtError) {
    try libvirt("virDomainAbortJob") { unsafe clibvirt_job_abort(domain) }
  }

  func checkpointNames() throws(LibvirtError) -> [String] {
    var count = 0
    guard let text = unsafe clibvirt_checkpoint_names(domain, &count) else {
      throw LibvirtError(last: "virDomainListAllCheckpoints")
    }
    defer { unsafe free(text) }
    var names: [String] = []
    var next = unsafe text
    for _ in 0..<count {
      names.append(unsafe String(cString: next))
      unsafe next += strlen(next) + 1
    }
    return names
  }

  func checkpoint(_ name: String) throws(LibvirtError) -> String {
    let checkpoint = try unsafe look(up: name)
    defer { unsafe clibvirt_checkpoint_free(checkpoint) }
    return try unsafe libvirtText("virDomainCheckpointGetXMLDesc") {
      unsafe clibvirt_checkpoint_xml(checkpoint)
    }
  }

  /// Deletes it, not its children.
  ///
  /// - Parameter forget: the disks keep their bitmaps.
  func deleteCheckpoint(_ name: String, forget: Bool = false) throws(LibvirtError) {
    let checkpoint = try unsafe look(up: name)
    defer { unsafe clibvirt_checkpoint_free(checkpoint) }
    try libvirt("virDomainCheckpointDelete") {
      unsafe clibvirt_checkpoint_delete(checkpoint, forget ? 1 : 0)
    }
  }

  /// - Parameter isChecked: whether it fails unless the disks have the checkpoint's bitmaps, which count.
  func redefineCheckpoint(_ xml: String, isChecked: Bool = false) throws(LibvirtError) {
    try libvirt("virDomainCheckpointCreateXML") {
      unsafe clibvirt_checkpoint_redefine(domain, xml, isChecked ? 1 : 0)
    }
  }

  private func look(up name: String) throws(LibvirtError) -> OpaquePointer {
    guard let checkpoint = unsafe clibvirt_checkpoint_by_name(domain, name) else {
      throw LibvirtError(last: "virDomainCheckpointLookupByName")
    }
    return unsafe checkpoint
  }

  /// Fails when the guest's agent answers nothing within a time, or the guest doesn't run.
  func askAgent(seconds: Int) throws(LibvirtError) {
    do throws(LibvirtError) {
      _ = try limited(seconds) { () throws(LibvirtError) in
        try libvirt("virDomainGetTime") { unsafe clibvirt_ask_agent(domain) }
      }
    } catch {
      // Whatever else it says, it is there: it may not be allowed to tell.
      let codes = [clibvirt_ERR_AGENT_UNRESPONSIVE, clibvirt_ERR_OPERATION_INVALID]
      if codes.contains(error.code) { throw error }
    }
  }

  /// How many file systems were frozen.
  func freeze(seconds: Int) throws(LibvirtError) -> Int {
    try limited(seconds) { () throws(LibvirtError) in
      try libvirt("virDomainFSFreeze") { unsafe clibvirt_freeze(domain) }
    }
  }

  /// How many file systems were thawed.
  func thaw(seconds: Int) throws(LibvirtError) -> Int {
    try limited(seconds) { () throws(LibvirtError) in
      try libvirt("virDomainFSThaw") { unsafe clibvirt_thaw(domain) }
    }
  }

  /// The limit is one of the domain, for all who talk to its agent, and can't be asked for: afterwards there is
  /// none, as when libvirt starts.
  private func limited(_ seconds: Int, _ body: () throws(LibvirtError) -> Int) throws(LibvirtError)
    -> Int
  {
    try libvirt("virDomainAgentSetResponseTimeout") {
      unsafe clibvirt_limit_agent(domain, Int32(clamping: max(1, seconds)))
    }
    defer { _ = unsafe clibvirt_limit_agent(domain, 0) }
    return try body()
  }
}
