import CLinux
import Glibc
package import Platform

/// A running domain of this machine's libvirt.
package final class LibvirtDomain: GuestMachine {
  package let description: MachineDescription
  package let disks: [GuestDisk]
  let handle: LibvirtHandle
  package let uri: String
  package let name: String
  /// Whether the guest's agent is connected: who could freeze its file systems.
  package let hasAgent: Bool
  let images: [LibvirtDisk]
  /// Who QEMU runs as.
  let owner: LibvirtScratch.Owner

  /// - Parameters:
  ///   - uri: `qemu:///system`, `qemu:///session`, `qemu+unix:///session?socket=…`.
  ///   - domain: its name or UUID.
  /// - Throws: `notFound` when there is no libvirt, nobody answers or there is no such domain; `refused` when
  ///   the domain is off (``DomainAtRest``).
  package init(connecting uri: String, domain: String) throws(StrobeError) {
    let connection = try LibvirtConnection(uri)
    self.uri = uri
    let handle = try LibvirtHandle(connection, domain: domain)
    self.handle = handle
    let object = "domain \(domain)"
    let isOff = try about(object) { () throws(LibvirtError) in try handle.state() == .off }
    guard !isOff else { throw StrobeError(.refused, "domain \(domain) is off") }
    let live = try about(object) { () throws(LibvirtError) in try handle.xml(inactive: false) }
    let document = try XMLElement(parsing: live)
    images = LibvirtDisk.all(in: document)
    hasAgent = LibvirtAgent.isConnected(in: document)
    name = try about(object) { () throws(LibvirtError) in try handle.name() }
    owner = Self.owner(document, uri)
    let emulator = LibvirtEmulator(document)
    description = try about(object) { () throws(LibvirtError) in
      try Self.description(of: handle, emulator)
    }
    let uuid = description.uuid ?? name
    let threadsWork =
      images.contains(where: \.hasThread) && emulator.survivesThreads(uuid, connection)
    disks = images.map { Self.disk($0, of: handle, uuid, threadsWork: threadsWork) }
    // What a libvirtd that has died meanwhile doesn't tell isn't the disks' obstacle.
    _ = try about(object) { () throws(LibvirtError) in try handle.state() }
  }

  /// With its definition: what it can be defined again with.
  static func description(of handle: LibvirtHandle, _ emulator: LibvirtEmulator)
    throws(LibvirtError) -> MachineDescription
  {
    let connection = handle.connection
    let uuid = try handle.uuid()
    return MachineDescription(
      hypervisor:
        "libvirt \(try connection.libraryVersion()), \(connection.driver) \(emulator.machine)",
      name: try handle.name(), uuid: uuid, configuration: try handle.xml(inactive: true),
      run: GuestProcess.mark(uuid: uuid))
  }

  private static func disk(
    _ image: LibvirtDisk, of handle: LibvirtHandle, _ uuid: String, threadsWork: Bool
  ) -> GuestDisk {
    var obstacle = image.obstacle
    if image.hasThread && !threadsWork {
      obstacle =
        obstacle
        ?? "it has an iothread, and QEMU before 9.0 aborts at the end of an NBD export of such a disk; "
        + "remove the iothread, run the domain as a machine of 9.0 (pc-q35-9.0), or take its image while it is off"
    }
    var size = 0
    do throws(LibvirtError) {
      size = try handle.size(ofDisk: image.target)
    } catch {
      obstacle = obstacle ?? "libvirt doesn't say how large it is: \(error.message)"
    }
    return GuestDisk(
      name: image.target, size: size, identity: "libvirt:\(uuid):\(image.target):\(image.mark)",
      storage: image.storage, obstacle: obstacle)
  }

  /// libvirt tells it where it changes users itself; a session's QEMU runs as its libvirtd does.
  private static func owner(_ document: XMLElement, _ uri: String) -> LibvirtScratch.Owner {
    for label in document.all("seclabel") where label["model"] == "dac" {
      let numbers = (label.child("label")?.text ?? "").split(separator: ":").map {
        UInt32($0.drop { $0 == "+" })
      }
      if numbers.count == 2, let user = numbers[0], let group = numbers[1] {
        return LibvirtScratch.Owner(user: user, group: group)
      }
    }
    if let start = uri.firstRange(of: "socket=") {
      let path = uri[start.upperBound...].prefix { $0 != "&" }.unescapedFromURI
      if let facts = try? FileFacts(path: path) {
        return LibvirtScratch.Owner(user: facts.owner, group: facts.group)
      }
    }
    return LibvirtScratch.Owner(user: geteuid(), group: getegid())
  }
}
