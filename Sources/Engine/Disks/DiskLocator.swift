import BlockDevices
import Platform
import VirtualMachines

/// Where a disk is, as the user writes it and the collection remembers it.
///
/// | text | what |
/// |---|---|
/// | `/dev/vg/os`, `os.raw` | a block device or raw image file |
/// | `qcow2:/images/os.qcow2`, also `vmdk:`, `vdi:`, `vhdx:`, `raw:` | an image file of a guest that is off |
/// | `nbd://host/export`, `nbd+unix:///export?socket=/run/x.sock` | what an NBD server exports |
/// | `qemu:/run/vm1.qmp#vd0` | a disk of a running guest, by QEMU's monitor |
/// | `libvirt:qemu:///system#vm1#vda` | a disk of a running guest, by libvirt |
enum DiskLocator: Equatable {
  case local(path: String)
  case image(path: String, ImageFormat)
  case network(uri: String)
  case guest(GuestLocator, disk: String)

  /// Whatever is none of the others is a path.
  init(_ text: String) {
    if NBDDisk.isURI(text) {
      self = .network(uri: text)
    } else if let (guest, disk) = GuestLocator.parse(text) {
      self = .guest(guest, disk: disk)
    } else if let colon = text.firstIndex(of: ":"),
      let format = ImageFormat(rawValue: String(text[..<colon]))
    {
      let path = absolutePath(String(text[text.index(after: colon)...]))
      self = format == .raw ? .local(path: path) : .image(path: path, format)
    } else {
      self = .local(path: absolutePath(text))
    }
  }

  /// As the collection remembers it: paths are whole.
  var text: String {
    switch self {
    case .local(let path): path
    case .image(let path, let format): "\(format.rawValue):\(path)"
    case .network(let uri): uri
    case .guest(let guest, let disk): guest.text(ofDisk: disk)
    }
  }

  /// The device or file of this machine that it leads to, or nil.
  var path: String? {
    switch self {
    case .local(let path), .image(let path, _): path
    case .network, .guest: nil
    }
  }
}

/// A running guest, by what answers for it.
enum GuestLocator: Equatable {
  /// The UNIX socket of QEMU's monitor (QMP).
  case qemu(monitor: String)
  case libvirt(uri: String, domain: String)

  private static let qemuScheme = "qemu:"
  private static let libvirtScheme = "libvirt:"

  /// - Returns: nil when it is the locator of something else.
  static func parse(_ text: String) -> (GuestLocator, disk: String)? {
    // By bytes: a name may begin or end with what would make one character with the separator.
    let separator = UInt8(ascii: "#")
    guard let hash = text.utf8.lastIndex(of: separator) else { return nil }
    let disk = String(text[text.utf8.index(after: hash)...])
    let rest = text[..<hash]
    if rest.hasPrefix(qemuScheme + "/") {
      return (.qemu(monitor: String(rest.dropFirst(qemuScheme.count))), disk)
    }
    guard rest.hasPrefix(libvirtScheme), let inner = rest.utf8.lastIndex(of: separator)
    else { return nil }
    let uri = String(rest[..<inner].dropFirst(libvirtScheme.count))
    return (.libvirt(uri: uri, domain: String(rest[rest.utf8.index(after: inner)...])), disk)
  }

  func text(ofDisk disk: String) -> String {
    switch self {
    case .qemu(let monitor): "\(Self.qemuScheme)\(monitor)#\(disk)"
    case .libvirt(let uri, let domain): "\(Self.libvirtScheme)\(uri)#\(domain)#\(disk)"
    }
  }

  /// For messages.
  var description: String {
    switch self {
    case .qemu(let monitor): "the guest of \(monitor)"
    case .libvirt(_, let domain): "domain \(domain)"
    }
  }
}
