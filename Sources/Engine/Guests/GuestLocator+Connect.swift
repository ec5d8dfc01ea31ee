import Platform
import VirtualMachines

extension GuestLocator {
  /// Milliseconds that a monitor may take to greet.
  private static let greetingMilliseconds = 10_000

  func connect(stop: CancellationFlag) throws(StrobeError) -> any GuestMachine {
    switch self {
    case .qemu(let monitor):
      return try QEMUMachine(
        socket: monitor, milliseconds: Self.greetingMilliseconds, stop: stop)
    case .libvirt(let uri, let domain):
      return try LibvirtDomain(connecting: uri, domain: domain)
    }
  }
}
