import CLinux
package import Platform

/// A domain of this machine's libvirt that is off: nobody writes to its disks, which are read past libvirt.
package final class DomainAtRest: Sendable {
  /// Where a disk of it is.
  package struct Image: Sendable {
    /// `vda`.
    package let name: String
    package let path: String
    package let format: ImageFormat
  }

  package let description: MachineDescription
  /// All disks that a running domain's snapshot would take.
  package let disks: [GuestDisk]
  private let images: [Image]
  /// When the files of the images were last written to.
  private let times: [String]
  private let handle: LibvirtHandle
  private let name: String

  /// - Throws: as ``LibvirtDomain/init(connecting:domain:)``.
  /// - Returns: nil when the domain runs.
  package convenience init?(connecting uri: String, domain: String) throws(StrobeError) {
    try self.init(LibvirtHandle(LibvirtConnection(uri), domain: domain), domain)
  }

  init?(_ handle: LibvirtHandle, _ domain: String) throws(StrobeError) {
    let object = "domain \(domain)"
    let isOff = try about(object) { () throws(LibvirtError) in try handle.state() == .off }
    guard isOff else { return nil }
    let definition = try about(object) { () throws(LibvirtError) in
      try handle.xml(inactive: true)
    }
    let document = try XMLElement(parsing: definition)
    let description = try about(object) { () throws(LibvirtError) in
      try LibvirtDomain.description(of: handle, LibvirtEmulator(document))
    }
    let found = LibvirtDisk.all(in: document)
    self.handle = handle
    self.description = description
    name = domain
    disks = found.map { disk in
      GuestDisk(
        name: disk.target, size: 0, identity: "", storage: disk.storage,
        obstacle: disk.obstacle ?? Self.obstacle(disk))
    }
    images = found.compactMap { disk in
      guard let path = disk.path, let format = ImageFormat(rawValue: disk.format) else {
        return nil
      }
      return Image(name: disk.target, path: path, format: format)
    }
    times = images.map(Self.time)
  }

  private static func obstacle(_ disk: LibvirtDisk) -> String? {
    if disk.path == nil {
      return
        "the domain is off, and its storage, \(disk.storage), is no file or device of this machine"
    }
    if ImageFormat(rawValue: disk.format) == nil {
      return "the domain is off, and images in the format \(disk.format) can't be read without it"
    }
    return nil
  }

  private static func time(_ image: Image) -> String {
    guard let facts = try? FileFacts(path: image.path), facts.isRegularFile else { return "" }
    return "\(facts.inode) \(facts.modified_seconds).\(facts.modified_nanoseconds)"
  }

  /// Where a disk without ``GuestDisk/obstacle`` is.
  package func image(of disk: String) -> Image? { images.first { $0.name == disk } }

  /// - Throws: `busy` when it was started meanwhile, and what was read may be of several moments.
  package func checkIsOff() throws(StrobeError) {
    let isOff = try about("domain \(name)") { () throws(LibvirtError) in
      try handle.state() == .off
    }
    // It may have run and ended in between.
    guard isOff, times == images.map(Self.time) else {
      throw StrobeError(
        .busy, "domain \(name) was started, or its images written to, while they were read",
        advice: "run the command again: a running domain is read through libvirt")
    }
  }
}
