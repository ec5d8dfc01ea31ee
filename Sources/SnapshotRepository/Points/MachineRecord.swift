/// The guest that a restore point was taken of through its hypervisor.
public struct MachineRecord: Codable, Sendable, Equatable {
  /// Documents that speak of guests have this format.
  static let format = 3

  /// `QEMU 7.2.22`, `libvirt 9.0.0, QEMU 7.2.22`.
  public let hypervisor: String
  /// The guest's own name, or nil.
  public let name: String?
  public let uuid: String?
  /// How its writes were kept apart while it was read: `reopen`, `copy-before-write`, `backup-job`, `libvirt`.
  public let way: String
  /// What it can be defined again with: libvirt's domain XML; nil where there is none.
  public let configuration: String?
  /// Tells the run of the guest that the point was taken of from any other; nil where that isn't known. For programs.
  public let run: String?

  package init(
    hypervisor: String, name: String?, uuid: String?, way: String, configuration: String?,
    run: String? = nil
  ) {
    self.run = run
    self.hypervisor = hypervisor
    self.name = name
    self.uuid = uuid
    self.way = way
    self.configuration = configuration
  }
}

/// What a collection remembers of its guest beside the disks.
package struct GuestRecord: Codable, Sendable, Equatable {
  /// The socket of the guest agent.
  package var agent: String?
  /// The monitor through which a guest with disks of this host is stopped for the cut.
  package var pauseMonitor: String?
  /// Where scratch images are made.
  package var scratch: String?
  package var excludedDisks: [String]?
  /// Whether the agent's hooks bring applications to rest.
  package var hooksBringRest: Bool?
  /// Whether its processors are never stopped.
  package var neverPauses: Bool?

  package init() {}

  package var isEmpty: Bool { self == GuestRecord() }
}
