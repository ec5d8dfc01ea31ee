import Testing

@testable import Engine

@Suite("Where a disk is")
struct DiskLocatorTests {
  @Test(
    "What is remembered of a guest's disk leads back to it, whatever its names begin and end with",
    arguments: ["vm1", "vm\u{600}", "\u{301}vm", "\u{200D}", "vm\r"])
  func guest(name: String) {
    for guest in [
      GuestLocator.libvirt(uri: "qemu:///system", domain: name), .qemu(monitor: "/run/" + name),
    ] {
      let disk = DiskLocator.guest(guest, disk: name)
      #expect(DiskLocator(disk.text) == disk)
    }
  }
}
