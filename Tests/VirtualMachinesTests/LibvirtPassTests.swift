import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

extension LibvirtTests {
  @Suite("A pass of libvirt's")
  struct LibvirtPassTests {
    @Test(
      "Reads everything, then what changed, as it was at the cut", arguments: [1, 2] as [UInt64])
    func fullAndIncremental(seed: UInt64) throws {
      var generator = SeededGenerator(seed: seed)
      let guest = try LibvirtGuest()
      try guest.writeAtRandom(&generator)
      let domain = try guest.domain()
      #expect(domain.disks.map(\.name) == ["vda", "vdb", "vdc"])
      #expect(domain.disks.map(\.size) == [16 << 20, 8 << 20, 4 << 20])
      #expect(domain.disks.allSatisfy { $0.obstacle == nil })
      for number in 1...4 {
        let parent = number == 1 ? nil : number - 1
        let pass = try domain.begin(guest.request(number, parent: parent))
        #expect(pass.way == "libvirt" && !pass.needsPause)
        try guest.writeAtRandom(&generator, times: 2)
        try pass.cut()
        let (content, written) = (guest.content, guest.written)
        guest.written = [:]
        try guest.writeAtRandom(&generator)
        let exports = try pass.open()
        #expect(exports.map(\.disk) == LibvirtGuest.names)
        try guest.expect(
          exports, hold: content,
          changes: parent == nil
            ? [:] : ["vda": written["vda"] ?? [], "vdb": written["vdb"] ?? [], "vdc": nil])
        #expect((exports[2].doubt != nil) == (parent != nil))
        #expect(pass.failure() == nil)
        try pass.close()
        try pass.close()
        #expect(try !guest.hasTraces())
        try pass.commit(discredited: [])
        #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(number)])
        #expect(try guest.rig.bitmaps(guest.name).count == 2)
      }
    }

    @Test("Says what the guest is")
    func description() throws {
      let guest = try LibvirtGuest()
      let domain = try guest.domain()
      let description = domain.description
      #expect(
        description.hypervisor.contains("libvirt ") && description.hypervisor.contains(", QEMU "))
      #expect(description.name == "guest")
      let uuid = try #require(description.uuid)
      #expect(try LibvirtDomain(connecting: guest.rig.uri, domain: uuid).disks == domain.disks)
      #expect(description.configuration?.contains("vdb.qcow2") == true)
      #expect(Set(domain.disks.map(\.identity)).count == 3)
      #expect(domain.disks.allSatisfy { $0.identity.hasPrefix("libvirt:\(uuid):vd") })
    }

    /// Where libvirtd is new, it would start each QEMU of the machine and ask it what it can, for seconds.
    @Test("Doesn't have libvirtd look at QEMUs that the guest hasn't")
    func probes() throws {
      let rig = try LibvirtRig(isProbed: false)
      let image = try rig.makeImage("vda.qcow2", size: "4M")
      try rig.define("guest", disks: LibvirtRig.disk(image, "vda"))
      let before = try rig.whatWasProbed()
      #expect(before.count == 1)
      let domain = try LibvirtDomain(connecting: rig.uri, domain: "guest")
      #expect(domain.description.hypervisor.contains(", QEMU pc-q35-"))
      let pass = try domain.begin(
        GuestPassRequest(
          collection: LibvirtGuest.collection, point: LibvirtGuest.point(1), parent: nil,
          disks: ["vda"], scratchFolder: rig.scratch, mayPause: false, countsChanges: true,
          stop: CancellationFlag()))
      try pass.cut()
      #expect(try pass.open().map(\.disk) == ["vda"])
      try pass.close()
      try pass.commit(discredited: [])
      #expect(try rig.whatWasProbed() == before)
    }

    @Test("Leaves out what wasn't asked for, and counts for what it took")
    func someDisks() throws {
      let guest = try LibvirtGuest()
      let domain = try guest.domain()
      let first = try domain.begin(guest.request(1, disks: ["vda"]))
      try first.cut()
      #expect(try first.open().map(\.disk) == ["vda"])
      try first.close()
      try first.commit(discredited: [])
      try guest.write("vda", 7, at: 3)
      let second = try domain.begin(guest.request(2, parent: 1, disks: ["vdb", "vda"]))
      try second.cut()
      let exports = try second.open()
      #expect(exports.map(\.disk) == ["vdb", "vda"])
      #expect(exports[0].bitmap == nil && exports[0].doubt != nil)
      #expect(try guest.changed(exports[1]) == [3])
      try second.close()
      try second.commit(discredited: [])
    }

    @Test("A pass that is given back loses no change")
    func giveBack() throws {
      let guest = try LibvirtGuest()
      let domain = try guest.domain()
      try run(domain, guest.request(1))
      guest.written = [:]
      try guest.write("vda", 1, at: 1)
      let failed = try domain.begin(guest.request(2, parent: 1))
      try failed.cut()
      try guest.write("vda", 2, at: 9, count: 2)
      try failed.close()
      try failed.giveBack()
      try failed.giveBack()
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(1)])
      try guest.write("vdb", 3, at: 5)
      let next = try domain.begin(guest.request(3, parent: 1))
      try next.cut()
      try guest.expect(
        next.open(), hold: guest.content, changes: ["vda": [1, 9, 10], "vdb": [5], "vdc": nil])
      try next.close()
      try next.commit(discredited: [])
    }

    @Test("Counts nothing when it isn't to, or when the record missed some")
    func uncounted() throws {
      let guest = try LibvirtGuest()
      let domain = try guest.domain()
      try run(domain, guest.request(1, counts: false))
      #expect(try guest.checkpoints().isEmpty)
      try run(domain, guest.request(2))
      let third = try domain.begin(guest.request(3, parent: 2))
      try third.cut()
      try third.close()
      try third.commit(discredited: ["vdb"])
      #expect(try guest.checkpoints().isEmpty)
      #expect(third.warnings.contains { $0.contains("vdb") })
      let fourth = try domain.begin(guest.request(4, parent: 3))
      try fourth.cut()
      #expect(try fourth.open().allSatisfy { $0.bitmap == nil && $0.doubt != nil })
      try fourth.close()
      try fourth.giveBack()
      #expect(try guest.rig.bitmaps(guest.name).isEmpty)
    }

    private func run(_ domain: LibvirtDomain, _ request: GuestPassRequest) throws {
      let pass = try domain.begin(request)
      try pass.cut()
      try pass.close()
      try pass.commit(discredited: [])
    }
  }
}
