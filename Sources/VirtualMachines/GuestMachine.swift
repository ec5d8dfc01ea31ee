package import Platform

// How the engine reads the disks of a guest through its hypervisor: once through QMP, once through libvirt.
//
//   discover → prepare → [hold still] cut [let go] → open → read the exports → close → commit or give back
//
// Invariants of every way:
// - Until `commit` the hypervisor keeps what it noted since the parent point; after `giveBack`, and after
//   a crash at any step, it is there still, or known to be lost.
// - `close` leaves nothing that slows the guest or takes its space: no export, job, filter, scratch image.
// - What runs out or breaks while a pass reads breaks the pass, never the guest.

/// A disk of a guest, as its hypervisor knows it.
package struct GuestDisk: Sendable, Equatable {
  /// The id of its device (`vd1`); with libvirt its target (`vda`).
  package let name: String
  /// Bytes.
  package let size: Int
  /// Tells this disk from another that takes its name: the guest and what the disk is stored in.
  package let identity: String
  /// The file or device that it is stored in, for messages; nil when the hypervisor doesn't say.
  package let storage: String?
  /// Whether the hypervisor can take a snapshot of it, or why not.
  package let obstacle: String?

  package init(name: String, size: Int, identity: String, storage: String?, obstacle: String? = nil)
  {
    self.name = name
    self.size = size
    self.identity = identity
    self.storage = storage
    self.obstacle = obstacle
  }
}

/// What a guest is, to be kept in the restore point.
package struct MachineDescription: Sendable, Equatable {
  /// `QEMU 7.2.22`, `libvirt 9.0.0`.
  package let hypervisor: String
  /// The guest's own name, or nil.
  package let name: String?
  package let uuid: String?
  /// What the guest can be defined again with (libvirt's domain XML), or nil.
  package let configuration: String?
  /// Tells this run of the guest from any other, or nil.
  package let run: String?

  package init(
    hypervisor: String, name: String?, uuid: String?, configuration: String? = nil,
    run: String? = nil
  ) {
    self.run = run
    self.hypervisor = hypervisor
    self.name = name
    self.uuid = uuid
    self.configuration = configuration
  }
}

/// What a pass wants of a guest.
package struct GuestPassRequest: Sendable {
  /// 24 hexadecimal digits each: what the names of bitmaps and checkpoints are made of.
  package let collection: String
  package let point: String
  /// The point that changes are counted from; nil: everything is read.
  package let parent: String?
  /// The ``MachineDescription/run`` that the parent was taken of, if that is known.
  package let parentRun: String?
  /// Names of ``GuestDisk``s.
  package let disks: [String]
  /// A directory for scratch images and sockets. The hypervisor must be able to open what is made there.
  package let scratchFolder: String
  /// Whether the guest's processors may be stopped for some milliseconds.
  package let mayPause: Bool
  /// Whether there should be a record of the changes from this point on.
  package let countsChanges: Bool
  package let stop: CancellationFlag

  package init(
    collection: String, point: String, parent: String?, parentRun: String? = nil, disks: [String],
    scratchFolder: String,
    mayPause: Bool, countsChanges: Bool, stop: CancellationFlag
  ) {
    self.collection = collection
    self.point = point
    self.parent = parent
    self.parentRun = parentRun
    self.disks = disks
    self.scratchFolder = scratchFolder
    self.mayPause = mayPause
    self.countsChanges = countsChanges
    self.stop = stop
  }

  /// The name of a checkpoint of libvirt that counts from a point.
  package func name(countingFrom point: String) -> String { "\(prefix)\(point)" }
  /// What the names of all of the collection's begin with.
  package var prefix: String { "strobe-\(collection)-" }
}

/// Where a disk of a guest is read, as it was at the cut.
package struct GuestExport: Sendable {
  package let disk: String
  /// An NBD URI (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md).
  package let uri: String
  /// The metadata context that names what changed since the parent, such as `qemu:dirty-bitmap:NAME`;
  /// nil: everything has to be read.
  package let bitmap: String?
  /// Why there is none although there is a parent.
  package let doubt: String?

  package init(disk: String, uri: String, bitmap: String?, doubt: String?) {
    self.disk = disk
    self.uri = uri
    self.bitmap = bitmap
    self.doubt = doubt
  }
}

/// A guest that a connection was made to.
package protocol GuestMachine: AnyObject {
  var description: MachineDescription { get }
  /// All disks that could be taken: no CD-ROMs, no empty drives, nothing read-only.
  var disks: [GuestDisk] { get }
  /// Clears up what passes of the collection left that were killed, and makes ready all that takes time.
  ///
  /// - Throws: `refused` when no way is safe for the guest, with the way that works; `busy` when somebody
  ///   else's pass runs; `system` and `cancelled`.
  func begin(_ request: GuestPassRequest) throws(StrobeError) -> any GuestPass
}

/// One pass over disks of a guest.
package protocol GuestPass: AnyObject {
  /// What the reader should know.
  var warnings: [String] { get }
  /// How the guest's writes are kept apart: `reopen`, `copy-before-write`, `backup-job`, `libvirt`, …
  var way: String { get }
  /// Whether ``cut()`` has to find the guest's processors stopped; whoever holds the guest still stops them.
  var needsPause: Bool { get }
  /// Makes the instant, of all disks together: milliseconds.
  func cut() throws(StrobeError)
  /// Opens the exports, in the order of the request's disks.
  func open() throws(StrobeError) -> [GuestExport]
  /// Why what is read of the exports is not the instant of the cut any more (the scratch space ran out, the
  /// guest ended); nil: all is well. Asked when everything was read, before the commit, and when a read fails.
  func failure() -> String?
  /// Ends the exports and removes what keeps the guest's writes apart. May be called again.
  ///
  /// - Throws: when something stays; the next pass clears it up.
  func close() throws(StrobeError)
  /// The point is durable: what counted from its parent is dropped.
  ///
  /// - Parameter discredited: disks whose record of changes missed some: what is counted now is dropped, too.
  func commit(discredited: Set<String>) throws(StrobeError)
  /// The pass failed: what counts from the parent is complete again. After `close`.
  func giveBack() throws(StrobeError)
}
