import Platform

/// The QEMU that a running domain has, as far as its XML tells.
package struct LibvirtEmulator: Sendable, Equatable {
  /// From here on NBD exports of disks with iothreads don't make QEMU abort.
  private static let threadsWork = LibvirtVersion(number: 9_000_000)
  /// What the names of QEMU's own machines begin with; distributions have others, with versions of theirs.
  private static let machines = ["pc-q35-", "pc-i440fx-", "virt-", "pseries-", "s390-ccw-virtio-"]

  /// `pc-q35-7.2`: a name without a version is replaced by libvirt when the domain is defined.
  package let machine: String
  private let path: String?

  /// - Parameter domain: the XML of a running domain.
  package init(_ domain: XMLElement) {
    machine = domain.child("os")?.child("type")?["machine"] ?? "machine unknown"
    path = domain.child("devices")?.child("emulator")?.text
  }

  /// Whether a QEMU that knows the machine survives an NBD export of a disk with an iothread.
  package var isSafeByMachine: Bool {
    guard let prefix = Self.machines.first(where: machine.hasPrefix) else { return false }
    let numbers = machine.dropFirst(prefix.count).split(
      separator: ".", omittingEmptySubsequences: false)
    guard numbers.count == 2, let major = UInt16(numbers[0]), let minor = UInt16(numbers[1]) else {
      return false
    }
    let version = LibvirtVersion(number: Int(major) * 1_000_000 + Int(minor) * 1000)
    return version >= Self.threadsWork
  }

  /// Whether the domain's QEMU is known to survive that.
  ///
  /// libvirt has no version of the QEMU of a domain, only of the default one, as it is installed now. May take seconds.
  func survivesThreads(_ uuid: String, _ connection: LibvirtConnection) -> Bool {
    if isSafeByMachine { return true }
    guard let path, let usual = try? connection.defaultEmulator(),
      resolvedPath(path) == resolvedPath(usual), !GuestProcess.isOutdated(uuid: uuid),
      let version = try? connection.hypervisorVersion()
    else { return false }
    return version >= Self.threadsWork
  }
}
