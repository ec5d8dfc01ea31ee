import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

extension LibvirtCrashes {
  @Suite("A pass of libvirt's after a crash")
  struct LibvirtCrashTests {
    enum Step: Int, CaseIterable { case begun, cut, opened, closed, committed }

    @Test("of the engine at any step loses no change, and nothing stays", arguments: Step.allCases)
    func engine(step: Step) throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.write("vda", 1, at: 1)
      var pass: (any GuestPass)? = try guest.domain().begin(guest.request(2, parent: 1))
      if step.rawValue >= Step.cut.rawValue { try pass?.cut() }
      if step.rawValue >= Step.opened.rawValue { _ = try pass?.open() }
      if step.rawValue >= Step.closed.rawValue { try pass?.close() }
      if step == .committed { try pass?.commit(discredited: []) }
      try guest.write("vda", 2, at: 9, count: 2)
      try guest.write("vdb", 3, at: 4)
      pass = nil
      let parent = step == .committed ? 2 : 1
      let next = try guest.domain().begin(guest.request(3, parent: parent))
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(parent)])
      try next.cut()
      try guest.expect(
        next.open(), hold: guest.content,
        changes: ["vda": parent == 1 ? [1, 9, 10] : [9, 10], "vdb": [4], "vdc": nil])
      try next.close()
      try next.commit(discredited: [])
      #expect(try !guest.hasTraces())
      #expect(try guest.rig.bitmaps(guest.name).count == 2)
    }

    @Test("between the point's commit and libvirt's counts from the point")
    func commitCutShort() throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.write("vda", 1, at: 1)
      let pass = try guest.domain().begin(guest.request(2, parent: 1))
      try pass.cut()
      try guest.write("vda", 2, at: 5)
      let next = try guest.domain().begin(guest.request(3, parent: 2))
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(2)])
      try next.cut()
      try guest.expect(
        next.open(), hold: guest.content, changes: ["vda": [5], "vdb": [], "vdc": nil])
      #expect(pass.failure() != nil)
      try next.close()
      try next.giveBack()
    }

    @Test("of libvirtd in the middle: the next pass clears up")
    func daemon() throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.write("vda", 1, at: 1)
      let pass = try guest.domain().begin(guest.request(2, parent: 1))
      try pass.cut()
      guest.rig.killDaemon()
      // Whoever owes the domain a thaw mustn't take it for gone.
      let gone = #expect(throws: StrobeError.self) {
        try LibvirtAgent(connecting: guest.rig.uri, domain: guest.name)
      }
      #expect(gone?.errno == ECONNREFUSED)
      #expect(pass.failure() != nil)
      #expect(throws: StrobeError.self) { try pass.close() }
      #expect(throws: StrobeError.self) { try pass.giveBack() }
      try guest.rig.startDaemon()
      try guest.write("vda", 2, at: 5)
      let next = try guest.domain().begin(guest.request(3, parent: 1))
      try next.cut()
      try guest.expect(
        next.open(), hold: guest.content, changes: ["vda": [1, 5], "vdb": [], "vdc": nil])
      try next.close()
      try next.commit(discredited: [])
      #expect(try !guest.hasTraces())
    }

    @Test("After a shutdown the record of several disks isn't believed, and is begun anew")
    func shutdown() throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.write("vda", 1, at: 200, count: 3)
      try guest.rig.virsh("destroy", "--graceful", guest.name)
      let error = #expect(throws: StrobeError.self) { try guest.domain() }
      #expect(error?.reason == .refused)
      try guest.rig.virsh("start", guest.name)
      try guest.write("vdb", 2, at: 3)
      let next = try guest.domain().begin(guest.request(2, parent: 1))
      try next.cut()
      let exports = try next.open()
      #expect(exports.allSatisfy { $0.bitmap == nil && $0.doubt != nil })
      #expect(exports[0].doubt?.contains("started anew") == true)
      try guest.expect(exports, hold: guest.content, changes: [:])
      try next.close()
      try next.commit(discredited: [])
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(2)])
    }

    @Test("of QEMU loses the record: everything is read", arguments: [false, true])
    func qemu(duringPass: Bool) throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.flush()
      if duringPass {
        let pass = try guest.domain().begin(guest.request(2, parent: 1))
        try pass.cut()
        try guest.rig.crash(guest.name)
        #expect(pass.failure()?.contains("ended") == true)
        try pass.close()
        #expect(throws: (any Error).self) { try pass.giveBack() }
      } else {
        // A record that was stored once is marked as in use then.
        try guest.rig.virsh("destroy", "--graceful", guest.name)
        try guest.rig.virsh("start", guest.name)
        try guest.write("vda", 1, at: 1)
        try guest.flush()
        try guest.rig.crash(guest.name)
      }
      try guest.rig.virsh("start", guest.name)
      let next = try guest.domain().begin(guest.request(3, parent: 1))
      try next.cut()
      let exports = try next.open()
      #expect(exports.allSatisfy { $0.bitmap == nil && $0.doubt != nil })
      try guest.expect(exports, hold: guest.content, changes: [:])
      try next.close()
      try next.commit(discredited: [])
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(3)])
      #expect(
        try guest.rig.bitmaps(guest.name)
          == [LibvirtGuest.checkpoint(3), LibvirtGuest.checkpoint(3)])
      try guest.noteRun()
      try guest.write("vdb", 9, at: 7)
      let last = try guest.domain().begin(guest.request(4, parent: 3))
      try last.cut()
      try guest.expect(
        last.open(), hold: guest.content, changes: ["vda": [], "vdb": [7], "vdc": nil])
      try last.close()
      try last.commit(discredited: [])
    }

    @Test("The guest is started again while a pass reads it")
    func restart() throws {
      let guest = try LibvirtGuest()
      try first(guest)
      let pass = try guest.domain().begin(guest.request(2, parent: 1))
      try pass.cut()
      try guest.rig.virsh("destroy", "--graceful", guest.name)
      try guest.rig.virsh("start", guest.name)
      #expect(pass.failure()?.contains("ended") == true)
      try pass.close()
      try pass.giveBack()
      #expect(try !guest.hasTraces())
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(1)])
    }

    @Test("One disk's lost record costs that disk alone")
    func oneRecord() throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.write("vdb", 1, at: 1)
      try order("remove", "vda", guest)
      let pass = try guest.domain().begin(guest.request(2, parent: 1))
      try pass.cut()
      let exports = try pass.open()
      #expect(exports[0].doubt?.contains("lost") == true)
      try guest.expect(
        exports, hold: guest.content, changes: ["vda": nil, "vdb": [1], "vdc": nil])
      try pass.close()
      try pass.commit(discredited: [])
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(2)])
      #expect(
        try guest.rig.bitmaps(guest.name)
          == [LibvirtGuest.checkpoint(2), LibvirtGuest.checkpoint(2)])
    }

    /// What somebody did behind our back to a disk's bitmap before libvirt had to forget its checkpoint.
    enum Spoilt: CaseIterable { case nothing, removed, disabled, both }

    @Test(
      "A checkpoint that libvirt has forgotten still counts where its bitmap does",
      arguments: Spoilt.allCases)
    func forgotten(spoilt: Spoilt) throws {
      let guest = try LibvirtGuest()
      try first(guest)
      try guest.rig.virsh("checkpoint-delete", guest.name, LibvirtGuest.checkpoint(1), "--metadata")
      #expect(try guest.checkpoints().isEmpty)
      if spoilt != .nothing { try order(spoilt == .disabled ? "disable" : "remove", "vda", guest) }
      if spoilt == .both { try order("remove", "vdb", guest) }
      try guest.write("vda", 1, at: 3)
      try guest.write("vdb", 1, at: 1)
      let pass = try guest.domain().begin(guest.request(2, parent: 1))
      let isKnown = spoilt != .both
      #expect(try guest.checkpoints() == (isKnown ? [LibvirtGuest.checkpoint(1)] : []))
      // A bitmap that doesn't count any more isn't left behind.
      let left = spoilt == .nothing ? 2 : isKnown ? 1 : 0
      #expect(try guest.rig.bitmaps(guest.name).count == left)
      try pass.cut()
      try guest.expect(
        pass.open(), hold: guest.content,
        changes: ["vda": spoilt == .nothing ? [3] : nil, "vdb": isKnown ? [1] : nil, "vdc": nil])
      try pass.close()
      try pass.commit(discredited: [])
      #expect(try guest.checkpoints() == [LibvirtGuest.checkpoint(2)])
      #expect(
        try guest.rig.bitmaps(guest.name)
          == [LibvirtGuest.checkpoint(2), LibvirtGuest.checkpoint(2)])
    }

    /// Does something to the first point's bitmap of a disk, past libvirt.
    private func order(_ what: String, _ disk: String, _ guest: LibvirtGuest) throws {
      let nodes = try guest.rig.virsh("qemu-monitor-command", guest.name, "--hmp", "info block")
      let node = try #require(
        nodes.split(whereSeparator: \.isNewline).first { $0.contains("\(disk).qcow2") }?.prefix {
          $0 != ":"
        })
      try guest.rig.virsh(
        "qemu-monitor-command", guest.name,
        "{\"execute\":\"block-dirty-bitmap-\(what)\",\"arguments\":{\"node\":\"\(node)\","
          + "\"name\":\"\(LibvirtGuest.checkpoint(1))\"}}")
    }

    private func first(_ guest: LibvirtGuest) throws {
      try guest.write("vda", 0x77, at: 40, count: 10)
      let pass = try guest.domain().begin(guest.request(1))
      try pass.cut()
      try pass.close()
      try pass.commit(discredited: [])
      guest.written = [:]
    }
  }
}
