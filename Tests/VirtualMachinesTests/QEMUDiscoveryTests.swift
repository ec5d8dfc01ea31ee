import Platform
import TestSupport
import Testing
import VirtualMachines

@Suite("Disks of QEMU's guests", .enabled(if: TestGuest.isPossible, TestGuest.comment))
struct QEMUDiscoveryTests {
  private func zero(_ node: String) -> [String] {
    ["-blockdev", "driver=null-co,node-name=\(node),size=4194304,read-zeroes=on"]
  }

  @Test("Writable disks are found under their names; CD-ROMs, empty and read-only drives aren't")
  func names() throws {
    var extra: [String] = []
    for node in ["a", "b", "c", "d", "e", "f", "g"] { extra += zero(node) }
    extra += ["-device", "virtio-scsi-pci,id=scsi"]
    extra += ["-device", "scsi-hd,drive=a,id=sd.1,bus=scsi.0"]
    extra += ["-device", "virtio-blk-pci,drive=b"]
    extra += ["-device", "ide-hd,drive=c,id=ide,bus=ide.0"]
    extra += ["-device", "scsi-cd,drive=d,id=cd,bus=scsi.0"]
    extra += ["-device", "scsi-cd,id=empty,bus=scsi.0"]
    extra += ["-drive", "if=none,id=read,driver=null-co,size=4M,read-only=on"]
    extra += ["-device", "virtio-blk-pci,drive=read,id=readonly"]
    extra += [
      "-drive", "if=none,id=legacy,driver=null-co,size=4M", "-device",
      "virtio-blk-pci,drive=legacy",
    ]
    let guest = try TestGuest(.machine, [.raw, .filteredImage], extra: extra)
    let machine = try guest.machine()
    #expect(machine.disks.map(\.name) == ["b", "ide", "legacy", "sd.1", "vd0", "vd1"])
    #expect(machine.disks.allSatisfy { $0.size == 4 << 20 && $0.obstacle == nil })
    #expect(machine.disks[5].storage == guest.folder.file("disk1"))
    #expect(machine.disks[5].identity.hasPrefix("qemu:inode:"))
    #expect(Set(machine.disks.map(\.identity)).count == 6)
    #expect(machine.description.hypervisor.hasPrefix("QEMU "))
    #expect(machine.description.name == "test guest" && machine.description.uuid == nil)
    #expect(try machine.status() == "running")
    let error = try #require(throws: StrobeError.self) {
      try machine.begin(request(guest, point: 1, disks: ["cd"]))
    }
    #expect(error.reason == .notFound && error.description.contains("sd.1"), "\(error)")
  }

  @Test("A disk that QEMU would abort at isn't exported")
  func ioThreads() throws {
    var extra = ["-object", "iothread,id=io", "-device", "virtio-scsi-pci,id=scsi,iothread=io"]
    for node in ["a", "b"] { extra += zero(node) }
    extra += ["-device", "virtio-blk-pci,drive=a,id=fast,iothread=io"]
    extra += ["-device", "scsi-hd,drive=b,id=sd,bus=scsi.0"]
    let guest = try TestGuest(.machine, [.raw], extra: extra)
    let machine = try guest.machine()
    let version = machine.description.hypervisor.split { $0 == " " || $0 == "." }
    let isOld = try #require(Int(version[1])) < 9
    for disk in machine.disks {
      let isServedByThread = disk.name != "vd0"
      #expect((disk.obstacle != nil) == (isServedByThread && isOld), "\(disk)")
    }
    guard isOld else { return }
    let error = try #require(throws: StrobeError.self) {
      try machine.begin(request(guest, point: 1, disks: ["fast", "vd0"]))
    }
    #expect(error.reason == .refused && error.message.contains("--guest-pause"), "\(error)")
    let pass = try machine.begin(request(guest, point: 1, disks: ["vd0"]))
    try pass.close()
  }

  @Test("Names are made unique and fit for a repository")
  func unusualNames() throws {
    var extra: [String] = []
    for node in ["a", "b"] { extra += zero(node) }
    extra += ["-device", "virtio-blk-pci,drive=a,id=x_y", "-device", "virtio-blk-pci,drive=b"]
    extra += ["-drive", "if=none,id=b2,driver=null-co,size=4M"]
    extra += ["-device", "virtio-blk-pci,drive=b2,id=b"]
    let guest = try TestGuest(.machine, [], extra: extra)
    #expect(try guest.machine().disks.map(\.name) == ["b", "b-2", "x_y"])
  }

  @Test("qemu-storage-daemon's exports are its guest's disks")
  func daemon() throws {
    let guest = try TestGuest(.daemon, [.raw, .filteredImage])
    let machine = try guest.machine()
    #expect(machine.disks.map(\.name) == ["vd0", "vd1"])
    #expect(try machine.status() == nil && machine.description.name == nil)
    #expect(machine.disks[0].storage == guest.folder.file("disk0"))
  }
}
