import BlockDevices
import Platform
import SnapshotRepository
import VirtualMachines

/// A guest that is off and whose images are known: they are read as disks of this host, and the chain goes on.
struct GuestAtRest {
  private let locator: GuestLocator
  private let domain: DomainAtRest
  private let disks: [GuestDisk]
  let warnings: [String]

  init(
    _ locator: GuestLocator, _ domain: DomainAtRest, remembered: [String], excluded: [String]
  ) throws(StrobeError) {
    self.locator = locator
    self.domain = domain
    let (disks, warnings) = try GuestDiskChoice.choose(
      domain.disks, of: locator, remembered: remembered, excluded: excluded)
    self.disks = disks
    self.warnings = ["\(locator.description) is off: its images are read"] + warnings
  }

  /// As the collection remembers them: the next pass asks again whether the guest runs.
  var records: [CollectionRecord.Disk] {
    disks.map { .init(name: $0.name, source: locator.text(ofDisk: $0.name)) }
  }

  /// - Throws: as ``DiskSelection/open(_:isRemembered:)``; `busy` for an image that somebody holds.
  func sources() throws(StrobeError) -> [DiskSource] {
    let images = disks.compactMap { disk in
      domain.image(of: disk.name).map { image in
        CollectionRecord.Disk(
          name: disk.name, source: DiskLocator("\(image.format.rawValue):\(image.path)").text)
      }
    }
    return try DiskSelection.open(images, isRemembered: { _ in false })
  }

  /// - Throws: `busy` when the guest was started since.
  func checkIsOff() throws(StrobeError) { try domain.checkIsOff() }

  /// What is kept of the guest in the point.
  var machine: MachineRecord {
    let description = domain.description
    return MachineRecord(
      hypervisor: description.hypervisor, name: description.name, uuid: description.uuid,
      way: "images", configuration: description.configuration)
  }
}
