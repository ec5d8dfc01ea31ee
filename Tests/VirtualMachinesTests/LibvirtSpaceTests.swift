import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

extension LibvirtTests {
  @Suite("libvirt's scratch space")
  struct LibvirtSpaceTests {
    /// A boot sector that writes 4 KiB to every 64th KiB of its disk, again and again:
    ///
    ///     xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7c00
    ///     again: mov si, packet; mov ax, 0x4300; push dx; int 0x13; pop dx
    ///            add dword [lba], 128; and dword [lba], 0x1ff80; or dword [lba], 128; jmp again
    ///     packet: db 16, 0; dw 8, 0x8000, 0; lba: dq 128
    private static let writer: [UInt8] = [
      0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xD0, 0xBC, 0x00, 0x7C, 0xBE, 0x30, 0x7C, 0xB8, 0x00, 0x43,
      0x52,
      0xCD, 0x13, 0x5A, 0x66, 0x81, 0x06, 0x38, 0x7C, 0x80, 0x00, 0x00, 0x00, 0x66, 0x81, 0x26,
      0x38,
      0x7C, 0x80, 0xFF, 0x01, 0x00, 0x66, 0x81, 0x0E, 0x38, 0x7C, 0x80, 0x00, 0x00, 0x00, 0xEB,
      0xD9,
      0x10, 0x00, 0x08, 0x00, 0x00, 0x80, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00,
    ]

    @Test("that runs out ends the pass, and the guest goes on", arguments: [true, false])
    func exhausted(engineLives: Bool) throws {
      let rig = try writingGuest()
      // There is room when the pass begins.
      let scratch = rig.folder.file("small")
      try makeDirectories(scratch, mode: 0o755)
      try Shell.run("mount", "-t", "tmpfs", "-o", "size=72m,mode=755", "strobe-test", scratch)
      defer { unmount(scratch) }
      var domain: LibvirtDomain? = try LibvirtDomain(connecting: rig.uri, domain: "writer")
      var pass = try domain?.begin(request(scratch))
      try Shell.run("fallocate", "-l", "70M", scratch + "/others")
      try pass?.cut()
      if engineLives {
        // Nobody asks the pass: it looks after the guest itself.
        try rig.waitUntil("the job is ended") {
          (try? rig.virsh("backup-dumpxml", "writer")) == nil
        }
        #expect(pass?.failure()?.contains("could not be written") == true)
        try pass?.close()
        try pass?.giveBack()
        #expect(pass?.failure()?.contains("could not be written") == true)
      } else {
        (pass, domain) = (nil, nil)
        try rig.waitUntil("the guest stops") {
          (try? rig.virsh("domstate", "writer"))?.contains("paused") == true
        }
        domain = try LibvirtDomain(connecting: rig.uri, domain: "writer")
        let next = try domain?.begin(request(rig.scratch))
        try next?.close()
      }
      try rig.waitUntil("the guest goes on") {
        (try? rig.virsh("domstate", "writer"))?.contains("running") == true
      }
      let before = try written(rig)
      try rig.waitUntil("it writes") { (try? written(rig)).map { $0 > before } == true }
      #expect(try namesInDirectory(scratch) == ["others"])
      #expect(try namesInDirectory(rig.scratch).isEmpty)
      #expect(try rig.bitmaps("writer").isEmpty)
    }

    private func writingGuest() throws -> LibvirtRig {
      let rig = try LibvirtRig()
      let raw = rig.folder.file("boot.raw")
      // Zeros would take no scratch space.
      try writeBytes(
        Self.writer + [UInt8](repeating: 0, count: 510 - Self.writer.count) + [0x55, 0xAA]
          + [UInt8](repeating: 1, count: (64 << 20) - 512), to: raw)
      let image = try rig.makeImage("boot.qcow2", size: "64M")
      try Shell.run("qemu-img", "convert", "-n", "-O", "qcow2", raw, image)
      try rig.define("writer", disks: LibvirtRig.disk(image, "vda"))
      return rig
    }

    private func request(_ scratch: String) -> GuestPassRequest {
      GuestPassRequest(
        collection: LibvirtGuest.collection, point: LibvirtGuest.point(1), parent: nil,
        disks: ["vda"], scratchFolder: scratch, mayPause: false, countsChanges: true,
        stop: CancellationFlag())
    }

    private func written(_ rig: LibvirtRig) throws -> Int {
      let lines = try rig.virsh("domblkstat", "writer", "vda").split(separator: "\n")
      let line = try #require(lines.first { $0.contains("wr_req") })
      return try #require(line.split(separator: " ").last.flatMap { Int($0) })
    }
  }
}
