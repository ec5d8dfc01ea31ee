import Platform
import TestSupport
import Testing
import VirtualMachines

extension LibvirtTests {
  @Suite("A domain that is off")
  struct LibvirtRestTests {
    @Test("Says where its disks are, and whether it was started since")
    func images() throws {
      let rig = try LibvirtRig()
      let os = try rig.makeImage("os, first.qcow2", size: "4M")
      let data = try rig.makeImage("data.raw", size: "4M", format: "raw")
      try rig.define(
        "sleeper",
        disks: LibvirtRig.disk(os, "vda") + LibvirtRig.disk(data, "vdb", format: "raw"),
        start: false)
      let domain = try #require(try DomainAtRest(connecting: rig.uri, domain: "sleeper"))
      #expect(domain.disks.map(\.name) == ["vda", "vdb"])
      #expect(domain.disks.allSatisfy { $0.obstacle == nil })
      #expect(domain.image(of: "vda")?.path == os && domain.image(of: "vda")?.format == .qcow2)
      #expect(domain.image(of: "vdb")?.path == data && domain.image(of: "vdb")?.format == .raw)
      #expect(domain.image(of: "vdc") == nil)
      #expect(domain.description.name == "sleeper" && domain.description.uuid != nil)
      #expect(domain.description.configuration?.contains("data.raw") == true)
      try domain.checkIsOff()
      #expect(throws: StrobeError.self) {
        try LibvirtDomain(connecting: rig.uri, domain: "sleeper")
      }
      try rig.virsh("start", "sleeper")
      let error = #expect(throws: StrobeError.self) { try domain.checkIsOff() }
      #expect(error?.reason == .busy && error?.message.contains("started") == true)
      #expect(try DomainAtRest(connecting: rig.uri, domain: "sleeper") == nil)
    }

    @Test("Refuses disks that can't be read without it, by name")
    func obstacles() throws {
      let rig = try LibvirtRig()
      let image = try rig.makeImage("a.qcow2", size: "4M")
      try rig.define(
        "odd",
        disks: LibvirtRig.disk(image, "vda") + """
          <disk type='network' device='disk'><driver name='qemu' type='raw'/>
           <source protocol='nbd' name='x'><host name='192.0.2.1' port='1'/></source>
           <target dev='vdb' bus='virtio'/></disk>
          <disk type='file' device='disk'><driver name='qemu' type='qed'/>
           <source file='/nowhere/c.qed'/><target dev='vdc' bus='virtio'/></disk>
          """, start: false)
      let domain = try #require(try DomainAtRest(connecting: rig.uri, domain: "odd"))
      #expect(domain.disks.map { $0.obstacle == nil } == [true, false, false])
      #expect(domain.disks[1].obstacle?.contains("nbd://192.0.2.1/x") == true)
      #expect(domain.disks[2].obstacle?.contains("qed") == true)
    }
  }
}
