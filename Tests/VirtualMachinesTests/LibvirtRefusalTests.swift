import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

extension LibvirtTests {
  @Suite("libvirt is asked for what it can't")
  struct LibvirtRefusalTests {
    @Test("Another's backup job is left alone, and so are its checkpoints")
    func foreign() throws {
      let guest = try LibvirtGuest()
      let socket = guest.rig.scratch + "/theirs"
      let backup = """
        <domainbackup mode='pull'><server transport='unix' socket='\(socket)'/>
        <disks><disk name='vda' backup='yes' type='file'><scratch file='\(socket)-vda'/></disk></disks>
        </domainbackup>
        """
      let checkpoint = """
        <domaincheckpoint><name>virtnbdbackup.0</name><disks>
        <disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>
        """
      try writeBytes(Array(backup.utf8), to: guest.rig.folder.file("backup.xml"))
      try writeBytes(Array(checkpoint.utf8), to: guest.rig.folder.file("checkpoint.xml"))
      try guest.rig.virsh(
        "backup-begin", guest.name, guest.rig.folder.file("backup.xml"),
        guest.rig.folder.file("checkpoint.xml"))
      let domain = try guest.domain()
      let error = #expect(throws: StrobeError.self) { try domain.begin(guest.request(1)) }
      #expect(error?.reason == .busy)
      #expect(try guest.rig.virsh("backup-dumpxml", guest.name).contains(socket))
      try endJob(guest)
      for number in 1...3 {
        let pass = try domain.begin(guest.request(number, parent: number == 1 ? nil : number - 1))
        try pass.cut()
        try pass.close()
        number == 2 ? try pass.giveBack() : try pass.commit(discredited: [])
      }
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(3), "virtnbdbackup.0"])
      // A job that begins between the two is found before the guest has to wait for libvirt.
      let late = try domain.begin(guest.request(4, parent: 3))
      try guest.rig.virsh("backup-begin", guest.name, guest.rig.folder.file("backup.xml"))
      #expect(throws: StrobeError.self) { try late.cut() }
      try late.close()
      #expect(try guest.rig.virsh("backup-dumpxml", guest.name).contains(socket))
      try endJob(guest)
    }

    private func endJob(_ guest: LibvirtGuest) throws {
      try guest.rig.virsh("domjobabort", guest.name)
      try guest.rig.waitUntil("it is over") { (try? guest.hasJob()) == false }
    }

    @Test("Whom it doesn't know, and where it can't go")
    func unknown() throws {
      let guest = try LibvirtGuest()
      let error = #expect(throws: StrobeError.self) {
        try LibvirtDomain(connecting: guest.rig.uri, domain: "nobody")
      }
      #expect(error?.reason == .notFound)
      let domain = try guest.domain()
      #expect(throws: StrobeError.self) { try domain.begin(guest.request(1, disks: ["sda"])) }
      let closed = guest.rig.folder.file("closed")
      try makeDirectories(closed, mode: 0o700)
      let refused = #expect(throws: StrobeError.self) {
        try domain.begin(guest.request(1, scratch: closed))
      }
      #expect(refused?.reason == .refused && refused?.message.contains(closed) == true)
      let long = guest.rig.scratch + "/" + String(repeating: "x", count: 60)
      #expect(throws: StrobeError.self) { try domain.begin(guest.request(1, scratch: long)) }
      #expect(throws: StrobeError.self) { try domain.begin(guest.request(1, scratch: "/nowhere")) }
      #expect(try !guest.hasTraces())
    }

    @Test("Where the guest could overwrite more than there is room for")
    func space() throws {
      let rig = try LibvirtRig()
      let image = try rig.makeImage("huge.qcow2", size: "100T")
      try rig.define("huge", disks: LibvirtRig.disk(image, "vda"))
      let domain = try LibvirtDomain(connecting: rig.uri, domain: "huge")
      let request = GuestPassRequest(
        collection: LibvirtGuest.collection, point: LibvirtGuest.point(1), parent: nil,
        disks: ["vda"], scratchFolder: rig.scratch, mayPause: false, countsChanges: true,
        stop: CancellationFlag())
      let error = #expect(throws: StrobeError.self) { try domain.begin(request) }
      #expect(error?.reason == .refused && error?.advice?.contains("--scratch") == true)
      #expect(try namesInDirectory(rig.scratch).isEmpty)
      #expect(try rig.virsh("checkpoint-list", "huge", "--name").allSatisfy(\.isWhitespace))
    }

    @Test("A disk with an iothread, whose export would end QEMU before 9.0")
    func iothread() throws {
      let rig = try LibvirtRig()
      let images = try [rig.makeImage("a.qcow2", size: "4M"), rig.makeImage("b.qcow2", size: "4M")]
      try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", images[1], "4M")
      try Shell.run("chown", "nobody", images[1])
      try rig.define(
        "threads",
        disks: LibvirtRig.disk(images[0], "vda", driver: "iothread='1'")
          + LibvirtRig.disk(images[1], "vdb"), more: "<iothreads>1</iothreads>")
      let domain = try LibvirtDomain(connecting: rig.uri, domain: "threads")
      let version = try Shell.capture(["qemu-system-x86_64", "--version"]).output
        .split(separator: " ").first { $0.first?.isNumber == true }
      let isOld = (version?.split(separator: ".").first.flatMap { Int($0) } ?? 0) < 9
      #expect((domain.disks[0].obstacle?.contains("iothread") == true) == isOld)
      func request(_ disks: [String]) -> GuestPassRequest {
        GuestPassRequest(
          collection: LibvirtGuest.collection, point: LibvirtGuest.point(1), parent: nil,
          disks: disks, scratchFolder: rig.scratch, mayPause: false, countsChanges: true,
          stop: CancellationFlag())
      }
      if isOld { #expect(throws: StrobeError.self) { try domain.begin(request(["vda", "vdb"])) } }
      // The other one's image is of version 2: it is read whole, for ever.
      let pass = try domain.begin(request(["vdb"]))
      #expect(pass.warnings.contains { $0.contains("vdb") && $0.contains("version 2") })
      try pass.cut()
      try pass.close()
      try pass.commit(discredited: [])
      #expect(try rig.virsh("checkpoint-list", "threads", "--name").allSatisfy(\.isWhitespace))
    }

    @Test("A guest without an agent isn't frozen")
    func agent() throws {
      let guest = try LibvirtGuest()
      let agent = try LibvirtAgent(connecting: guest.rig.uri, domain: guest.name)
      let error = #expect(throws: StrobeError.self) { try agent.freeze(seconds: 2) }
      #expect(error?.reason == .refused && error?.message.contains("agent") == true)
      #expect(throws: StrobeError.self) { try agent.thaw(seconds: 2) }
    }

    @Test("Nobody at the socket, another machine, another hypervisor")
    func connections() {
      for (uri, reason) in [
        ("qemu+unix:///session?socket=/dev/shm/strobe-test-none", StrobeError.Reason.notFound),
        ("qemu+ssh://host/system", .refused), ("qemu://host/system", .refused),
        ("test:///default", .refused), ("", .refused),
      ] {
        let error = #expect(throws: StrobeError.self) {
          try LibvirtDomain(connecting: uri, domain: "guest")
        }
        #expect(error?.reason == reason, "\(uri)")
      }
    }

    @Test("A machine without libvirt, and one whose libvirt is too old")
    func missing() throws {
      for (name, text) in [("libvirt-none.so.0", "cannot open"), ("libc.so.6", "older than")] {
        let error = #expect(throws: StrobeError.self) { try LibvirtConnection.load(trying: name) }
        #expect(error?.reason == .notFound && error?.message.contains(text) == true)
        #expect(error?.advice?.contains("apt-get install libvirt0") == true)
      }
      try LibvirtConnection.load()
      try LibvirtConnection.load(trying: "libvirt.so.0")
    }
  }
}
