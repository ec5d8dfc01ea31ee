import CLibvirt
import Glibc
package import Platform

/// A connection to the libvirtd of this machine.
///
/// Every call runs on its caller's thread and waits for libvirtd, without a limit of its own: libvirtd gives up
/// after 30 seconds when another job has the domain, but a libvirtd that hangs keeps its callers. (A keepalive
/// needs an event loop, and libvirt's would outlive every connection.)
@safe package final class LibvirtConnection: Sendable {
  let uri: String
  // libvirt's objects may be used by many threads: https://libvirt.org/hacking.html
  nonisolated(unsafe) let handle: OpaquePointer

  /// - Throws: `notFound` when there is no libvirt or nobody answers, `refused` when it is another machine's.
  init(_ uri: String) throws(StrobeError) {
    guard uri.hasPrefix("qemu:///") || uri.hasPrefix("qemu+unix:///") else {
      throw StrobeError(
        .refused, "\(uri) isn't the libvirt of this machine's QEMU",
        advice: "run strobe where the guest runs, with qemu:///system or qemu:///session")
    }
    try Self.load()
    self.uri = uri
    guard let handle = unsafe clibvirt_open(uri) else {
      throw Self.explained(LibvirtError(last: "virConnectOpen"), uri)
    }
    unsafe self.handle = handle
  }

  deinit { unsafe clibvirt_close(handle) }

  private static func explained(_ error: LibvirtError, _ uri: String) -> StrobeError {
    switch error.code {
    case clibvirt_ERR_SYSTEM_ERROR, clibvirt_ERR_NO_CONNECT:
      StrobeError(
        .notFound, "no libvirt answers at \(uri): \(error.message)",
        advice: "is libvirtd (or virtqemud) running?")
    default: error.about(uri)
    }
  }

  /// Loads libvirt's library.
  ///
  /// - Parameter name: another library that is tried instead; it isn't used.
  /// - Throws: `notFound` with what to install.
  package static func load(trying name: String? = nil) throws(StrobeError) {
    var text = [CChar](repeating: 0, count: 512)
    let result =
      if let name {
        unsafe clibvirt_try(name, &text, text.count)
      } else {
        unsafe clibvirt_load(&text, text.count)
      }
    guard result == 0 else {
      throw StrobeError(
        .notFound, "libvirt can't be used: \(textUpToNUL(text))",
        advice: "install its library (apt-get install libvirt0)")
    }
  }

  /// `QEMU`.
  var driver: String {
    guard let text = unsafe clibvirt_driver(handle) else { return "unknown" }
    return unsafe String(cString: text)
  }

  func libraryVersion() throws(LibvirtError) -> LibvirtVersion {
    var number: UInt = 0
    try libvirt("virConnectGetLibVersion") { unsafe clibvirt_version(handle, &number) }
    return LibvirtVersion(number: Int(number))
  }

  /// The version of the QEMU that libvirt takes where a domain names no other (``defaultEmulator()``).
  ///
  /// The first who asks waits until libvirtd has started every QEMU of the machine and asked each what it can: seconds.
  func hypervisorVersion() throws(LibvirtError) -> LibvirtVersion {
    var number: UInt = 0
    try libvirt("virConnectGetVersion") { unsafe clibvirt_hypervisor_version(handle, &number) }
    return LibvirtVersion(number: Int(number))
  }

  /// The path of the QEMU that libvirt takes where a domain names no other; nil when it doesn't say.
  func defaultEmulator() throws(LibvirtError) -> String? {
    let document = try unsafe libvirtText("virConnectGetDomainCapabilities") {
      unsafe clibvirt_domain_capabilities(handle)
    }
    return (try? XMLElement(parsing: document))?.child("path")?.text
  }
}

/// A version as libvirt counts: major × 1,000,000 + minor × 1,000 + release.
struct LibvirtVersion: Comparable, CustomStringConvertible {
  let number: Int

  var description: String {
    "\(number / 1_000_000).\(number / 1000 % 1000).\(number % 1000)"
  }

  static func < (one: LibvirtVersion, other: LibvirtVersion) -> Bool { one.number < other.number }
}
