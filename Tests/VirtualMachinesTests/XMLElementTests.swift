import Platform
import TestSupport
import Testing
import VirtualMachines

@Suite("libvirt's XML")
struct XMLElementTests {
  @Test("Is read into elements, attributes and texts")
  func tree() throws {
    let root = try XMLElement(
      parsing:
        "<?xml version='1.0'?><a x='1&amp;&#228;'><!-- no --><b>t&lt;<![CDATA[<u>]]></b><b/></a>")
    #expect(root.name == "a" && root["x"] == "1&ä" && root["y"] == nil)
    #expect(root.all("b").map(\.text) == ["t<<u>", ""])
    #expect(root.child("c") == nil)
  }

  @Test("Escapes what it is made of")
  func escapes() throws {
    let text = "a<b>&'\"ä\u{1F600}/ %41"
    let root = try XMLElement(
      parsing: "<a x='\(text.escapedForXML)'>\(text.escapedForXML)</a>")
    #expect(root["x"] == text && root.text == text)
    #expect(text.escapedForURI.unescapedFromURI == text)
    #expect("a b?c".escapedForURI == "a%20b%3fc")
    #expect("%zz%4".unescapedFromURI == "%zz%4")
  }

  @Test("Is refused when it isn't what libvirt writes", arguments: hostile)
  func refused(text: String) {
    #expect(throws: StrobeError.self) { try XMLElement(parsing: text) }
  }

  private static let hostile = [
    "", " ", "<", "<a>", "<a></b>", "<a x=1/>", "\u{0}", "<a>\u{0}</a>", "<a/><b/>", "text",
    "<a>&unknown;</a>",
    "<!DOCTYPE a><a/>",
    "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>",
    "<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;&b;&b;'>]><a x='&c;'>&c;</a>",
    "<!DOCTYPE a SYSTEM 'http://127.0.0.1:1/a.dtd'><a/>",
    // One character with the letter before it, and the beginning of a name.
    "<!DOCTYPE\u{200D}a [<!ENTITY e 'text'>]><\u{200D}a x='&e;'/>",
    String(repeating: "<a>", count: 65) + String(repeating: "</a>", count: 65),
    String(repeating: "<a>", count: 100_000) + String(repeating: "</a>", count: 100_000),
    "<a>" + String(repeating: "x", count: XMLElement.sizeLimit) + "</a>",
  ]

  @Test("Damaged anywhere is refused or read, never more")
  func damaged() throws {
    var generator = SeededGenerator(seed: 7)
    let whole = Array(Self.domain.utf8)
    for _ in 0..<2000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] =
          .random(in: 0...255, using: &generator)
      }
      let document = try? XMLElement(parsing: String(decoding: bytes, as: UTF8.self))
      guard let document else { continue }
      #expect(LibvirtDisk.all(in: document).count <= 11)
    }
  }

  @Test("Names the disks that can be taken")
  func disks() throws {
    let disks = LibvirtDisk.all(in: try XMLElement(parsing: Self.domain))
    #expect(disks.map(\.target) == ["vda", "vdb", "sdc", "vdd", "vde", "vdf", "sdg", "vdh"])
    #expect(disks.map(\.format) == ["qcow2", "raw", "qcow2", "raw", "qcow2", "raw", "raw", "raw"])
    #expect(disks[0].storage == "/img/a & b.qcow2" && disks[0].path == "/img/a & b.qcow2")
    #expect(disks[1].storage == "/dev/vg/lv" && disks[1].path == "/dev/vg/lv")
    #expect(disks[3].storage == "rbd://one,two/pool/image" && disks[3].path == nil)
    #expect(disks.map(\.hasThread) == [true, false, true, false, false, false, false, false])
    #expect(
      disks.map { $0.obstacle != nil } == [
        false, false, false, false, true, true, true, false,
      ])
    #expect(disks[7].storage == "default/volume")
    #expect(disks[1].recordObstacle != nil && disks[0].recordObstacle == nil)
  }

  @Test("Says whether the guest's agent is there", arguments: ["connected", "disconnected"])
  func agent(state: String) throws {
    let domain = try XMLElement(
      parsing: """
        <domain><devices><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'
        state='\(state)'/></channel></devices></domain>
        """)
    #expect(LibvirtAgent.isConnected(in: domain) == (state == "connected"))
    #expect(try !LibvirtAgent.isConnected(in: XMLElement(parsing: Self.domain)))
  }

  @Test(
    "Which machines only a QEMU has that survives exports of disks with threads",
    arguments: [
      ("pc-q35-9.0", true), ("pc-i440fx-10.1", true), ("virt-9.2", true), ("pc-q35-8.2", false),
      ("pc-q35-rhel9.4.0", false), ("pc-q35-noble", false), ("q35", false), ("pc-q35-9", false),
      ("pc-q35-9.0.1", false), ("pc-q35--9.0", false), ("pc-q35-99999.0", false), ("", false),
    ])
  func machines(machine: String, isSafe: Bool) throws {
    let domain = try XMLElement(
      parsing: "<domain><os><type machine='\(machine)'>hvm</type></os></domain>")
    #expect(LibvirtEmulator(domain).isSafeByMachine == isSafe)
  }

  private static let domain = """
    <domain type='kvm'><name>x</name><devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' iothread='2'/>
     <source file='/img/a &amp; b.qcow2'/><backingStore type='file'><format type='raw'/>
     <source file='/img/base'/></backingStore><target dev='vda' bus='virtio'/><shareable/></disk>
    <disk type='block'><driver name='qemu' type='raw'/><source dev='/dev/vg/lv'/>
     <target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver type='qcow2'/><source file='/img/c'/>
     <target dev='sdc' bus='scsi'/><address type='drive' controller='1' bus='0' unit='0'/></disk>
    <disk type='network' device='disk'><driver type='raw'/><source protocol='rbd' name='pool/image'>
     <host name='one' port='6789'/><host name='two'/></source><target dev='vdd'/></disk>
    <disk type='file' device='disk'><driver type='qcow2'/><source file='/img/e'/>
     <target dev='vde'/><transient/></disk>
    <disk type='vhostuser' device='disk'><driver type='raw'/><source type='unix' path='/run/v.sock'/>
     <target dev='vdf'/></disk>
    <disk type='block' device='lun'><driver type='raw'/><source dev='/dev/sdx'/>
     <target dev='sdg' bus='scsi'/><address type='drive' controller='0'/></disk>
    <disk type='volume' device='disk'><source pool='default' volume='volume'/>
     <target dev='vdh'/></disk>
    <disk type='file' device='disk'><source file='/img/ro'/><target dev='vdi'/><readonly/></disk>
    <disk type='file' device='cdrom'><target dev='sdj'/><readonly/></disk>
    <disk type='file' device='floppy'><source file='/img/f'/><target dev='fda'/></disk>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <controller type='scsi' index='1' model='virtio-scsi'><driver iothread='1'/></controller>
    <controller type='usb' index='1'><driver iothread='1'/></controller>
    </devices></domain>
    """
}
