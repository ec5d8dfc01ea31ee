import VirtualMachines

@testable import Engine

// What tells of guests: libvirt's XML, and where a user says that a disk is.

extension FuzzedParser {
  static let domain = FuzzedParser("domain") { input in
    guard let document = try? XMLElement(parsing: input.text) else { return }
    for disk in LibvirtDisk.all(in: document) {
      require(!disk.target.isEmpty, "a disk has a target")
    }
  }

  static let locator = FuzzedParser("locator") { input in
    let locator = DiskLocator(input.text)
    require(DiskLocator(locator.text) == locator, "what is remembered leads to the same disk")
  }
}
