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
      // As if it had run and ended meanwhile.
      try Shell.run("touch", data)
      #expect(throws: StrobeError.self) { try domain.checkIsOff() }
      #expect(throws: StrobeError.self) {
        try LibvirtDomain(connecting: rig.uri, domain: "sleeper")
      }
      try rig.virsh("start", "sleeper")
      let error = #expect(throws: StrobeError.self) { try domain.checkIsOff() }
      #expect(error?.reason == .busy && error?.message.contains("started") == true)
      #expect(try DomainAtRest(connecting: rig.uri, domain: "sleeper") == nil)
    }

    /// libvirt gives the bitmaps of all disks one name: a copy of another disk's image brings one of that name along.
    @Test(
      "Started anew, one of several disks is read whole; a lone one is not, unless it lies over another"
    )
    func startedAnew() throws {
      let rig = try LibvirtRig()
      let below = try rig.makeImage("below.qcow2", size: "4M")
      let over = rig.folder.file("img/over.qcow2")
      try Shell.run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", over)
      try Shell.run("chown", "nobody", over)
      let images = try ["a", "b", "c"].map { try rig.makeImage("\($0).qcow2", size: "4M") }
      let domains = [
        ("two", [images[0], images[1]], true), ("lone", [images[2]], false), ("over", [over], true),
      ]
      for (name, paths, isWhole) in domains {
        let disks = zip(paths, ["vda", "vdb"]).map { LibvirtRig.disk($0, $1) }.joined()
        try rig.define(name, disks: disks)
        let first = try LibvirtDomain(connecting: rig.uri, domain: name)
        let run = try #require(first.description.run)
        #expect(
          try doubts(rig, first, 1, after: nil, of: run)
            == Array(repeating: nil, count: paths.count))
        // The same run: what counts, counts.
        #expect(
          try doubts(rig, first, 2, after: 1, of: run) == Array(repeating: nil, count: paths.count))
        try rig.virsh("destroy", "--graceful", name)
        if paths.count > 1 { try Shell.run("cp", paths[0], paths[1]) }
        try rig.virsh("start", name)
        let second = try LibvirtDomain(connecting: rig.uri, domain: name)
        #expect(second.description.run != run)
        for doubt in try doubts(rig, second, 3, after: 2, of: run) {
          #expect((doubt?.contains("started anew") ?? false) == isWhole, "\(name): \(doubt ?? "")")
        }
      }
    }

    /// Takes a point, and tells why disks are read whole.
    private func doubts(
      _ rig: LibvirtRig, _ domain: LibvirtDomain, _ point: Int, after parent: Int?, of run: String
    ) throws -> [String?] {
      let pass = try domain.begin(
        GuestPassRequest(
          collection: LibvirtGuest.collection, point: LibvirtGuest.point(point),
          parent: parent.map(LibvirtGuest.point), parentRun: run, disks: domain.disks.map(\.name),
          scratchFolder: rig.scratch, mayPause: false, countsChanges: true, stop: CancellationFlag()
        ))
      try pass.cut()
      let exports = try pass.open()
      try pass.close()
      try pass.commit(discredited: [])
      if parent != nil {
        for export in exports { #expect((export.bitmap == nil) == (export.doubt != nil)) }
      }
      return exports.map(\.doubt)
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
