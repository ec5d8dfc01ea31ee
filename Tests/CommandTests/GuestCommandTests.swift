import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Guests of QEMU, as a user meets them",
  .enabled(if: QEMUGuest.isPossible, "needs qemu-system-x86 and qemu-utils"))
struct GuestCommandTests {
  private func images(_ shop: Workshop, _ names: String...) throws -> [(
    id: String, format: String, image: String
  )] {
    try names.map { name in
      let path = shop.file("\(name).qcow2")
      try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
      return (name, "qcow2", path)
    }
  }

  private func expectRestored(_ shop: Workshop, _ image: String, _ disk: String) throws {
    let copy = shop.file("restored-" + hexadecimal(randomBytes(4)))
    try shop.strobe("restore", "vm@latest", "--disk", "\(disk)=\(copy)").expect(0)
    let result = try Shell.capture(
      ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", copy, image, "-U"])
    #expect(result.status == 0, "\(result.output)\(result.errors)")
  }

  @Test(
    "A guest is found by its monitor, remembered, read by its bitmaps, and goes on as an image when it is off"
  )
  func life() throws {
    let shop = try Workshop(seed: 70)
    let disks = try images(shop, "os", "data")
    let guest = try QEMUGuest(shop, disks)
    try guest.write("os", pattern: 7, at: 1 << 20, count: 300_000)
    let first = try shop.strobe("snapshot", "vm", "--qmp", guest.monitor, "--json").expect(0).json()
    #expect(first["consistency"].text == "CrashConsistent")
    #expect(first["machine"]["hypervisor"].text?.hasPrefix("QEMU ") == true)
    #expect(Set(first["disks"].list.compactMap { $0["name"].text }) == ["os", "data"])
    try guest.write("os", pattern: 8, at: 3 << 20, count: 4096)
    let second = try shop.strobe("snapshot", "vm", "--json").expect(0).json()
    for disk in second["disks"].list {
      #expect(disk["changeSource"].text == "qemu-bitmap", "\(disk["scanReason"].text ?? "")")
      #expect(disk["changedChunks"].number == (disk["name"].text == "os" ? 1 : 0))
    }
    try expectRestored(shop, disks[0].image, "os")
    try shop.strobe("show", "vm@latest").expect(0).prints(
      "Guest", "copy-before-write", "qemu-bitmap")
    try shop.strobe("show", "vm@latest", "--config").expect(1, says: "no definition of a guest")
    // The image that the guest holds can't be taken or restored to beside it.
    try shop.strobe("snapshot", "other", "--disk", "os=qcow2:\(disks[0].image)")
      .expect(1, says: "held by a running guest")
    try shop.strobe("restore", "vm@latest", "--disk", "os=qcow2:\(disks[0].image)", "--overwrite")
      .expect(1, says: "in use")
    guest.end()
    try shop.strobe("snapshot", "vm").expect(1, says: "nobody listens")
    // Off: the same chain, by content.
    let off = try shop.strobe(
      "snapshot", "vm", "--json", "--disk", "os=qcow2:\(disks[0].image)", "--disk",
      "data=qcow2:\(disks[1].image)"
    ).expect(0).json()
    for disk in off["disks"].list {
      #expect(disk["newChainReason"].text == nil && disk["changedChunks"].number == 0)
    }
    let again = try QEMUGuest(shop, disks)
    let on = try shop.strobe("snapshot", "vm", "--qmp", again.monitor, "--json").expect(0).json()
    for disk in on["disks"].list {
      #expect(disk["changeSource"].text == "scan" && disk["changedChunks"].number == 0)
    }
    try expectRestored(shop, disks[0].image, "os")
  }

  @Test("A record of changes that misses a write is found out, and isn't believed again")
  func lie() throws {
    let shop = try Workshop(seed: 74)
    let image = try shop.image("os.raw", 8 << 20)
    let guest = try QEMUGuest(shop, [("os", "raw", image)])
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
    // Past QEMU, which keeps nothing of the file in its memory.
    try shop.write(shop.bytes(8 << 20), to: image)
    let found = try shop.strobe("snapshot", "vm", "--json")
    #expect(found.status == 0)
    #expect(found.errors.contains("missed a write at byte"), "\(found.errors)")
    let disk = try found.json()["disks"][0]
    #expect(disk["changeSource"].text == "scan" && disk["changedChunks"].number == 128)
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "vm@latest", "--disk", "os=\(copy)").expect(0)
    expectSame(copy, image)
    let next = try shop.strobe("snapshot", "vm", "--json").expect(0).json()["disks"][0]
    #expect(next["changeSource"].text == "scan", "\(next["scanReason"].text ?? "")")
    let last = try shop.strobe("snapshot", "vm", "--json").expect(0).json()["disks"][0]
    #expect(last["changeSource"].text == "qemu-bitmap")
  }

  @Test("An image that was shrunk and grown again while the guest was off is read whole")
  func shrunk() throws {
    let shop = try Workshop(seed: 75)
    let image = shop.file("os.qcow2")
    let raw = try shop.image("os.raw", 8 << 20)
    try Shell.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    let guest = try QEMUGuest(shop, [("os", "qcow2", image)])
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
    // In good order, so that the bitmap is stored in the image.
    try guest.ask(#"{"execute":"quit"}"#)
    guest.end()
    let bitmaps = try Shell.run("qemu-img", "info", image)
    #expect(bitmaps.contains("granularity: 65536"), "\(bitmaps)")
    try Shell.run("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", image, "5M")
    try Shell.run("qemu-img", "resize", "-q", "-f", "qcow2", image, "8M")
    let again = try QEMUGuest(shop, [("os", "qcow2", image)])
    let result = try shop.strobe("snapshot", "vm", "--qmp", again.monitor, "--json")
    #expect(result.status == 0)
    #expect(result.errors.contains("shrunk and grown"), "\(result.errors)")
    #expect(try result.json()["disks"][0]["clearedChunks"].number == 48)
    try expectRestored(shop, image, "os")
  }

  @Test(
    "A cut that fails leaves the guest alive, and two devices over one image are refused before it")
  func failedCut() throws {
    let shop = try Workshop(seed: 76)
    let guest = try QEMUGuest(shop, images(shop, "os", "data"))
    let first = try shop.strobe("snapshot", "vm", "--qmp", guest.monitor, "--json").expect(0).json()
    #expect(first["machine"]["way"].text == "copy-before-write")
    try guest.ask(
      #"{"execute":"device_add","arguments":{"driver":"usb-storage","drive":"node-os","id":"twin"}}"#,
      mayFail: true)
    // A node that is in somebody else's hands can't be given to the filter.
    try guest.ask(
      #"{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"target","size":8388608}}"#
    )
    try guest.ask(
      #"{"execute":"blockdev-backup","arguments":{"job-id":"foreign","device":"node-data","target":"target","sync":"none"}}"#
    )
    _ = try shop.strobe("snapshot", "vm")
    try guest.ask(#"{"execute":"job-cancel","arguments":{"id":"foreign"}}"#)
    #expect(try guest.ask(#"{"execute":"query-status"}"#).contains("\"running\": true"))
    let copy = try shop.strobe("snapshot", "vm", "--json")
    #expect(copy.status == 0, "\(copy.errors)")
  }

  @Test("While somebody else's job runs over a disk, the guest is left alone")
  func foreignJob() throws {
    let shop = try Workshop(seed: 77)
    let guest = try QEMUGuest(shop, images(shop, "os", "data"))
    try guest.ask(
      #"{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"target","size":8388608}}"#
    )
    // A mirror never ends by itself.
    try guest.ask(
      #"{"execute":"blockdev-mirror","arguments":{"job-id":"move","device":"node-data","target":"target","sync":"full","copy-mode":"write-blocking"}}"#
    )
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor)
      .expect(1, says: "QEMU runs a job over the guest's disks, mirror move")
    try guest.ask(#"{"execute":"block-job-cancel","arguments":{"device":"move","force":true}}"#)
    try waitUntil("the job is over") {
      try guest.ask(#"{"execute":"query-jobs"}"#).contains("\"return\": []")
    }
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
  }

  @Test("A guest that stands still already is taken, and stands still afterwards")
  func paused() throws {
    let shop = try Workshop(seed: 78)
    let guest = try QEMUGuest(shop, images(shop, "os", "data"))
    try guest.ask(#"{"execute":"stop"}"#)
    let point = try shop.strobe("snapshot", "vm", "--qmp", guest.monitor, "--json").expect(0).json()
    #expect(point["machine"]["way"].text == "copy-before-write")
    #expect(try guest.ask(#"{"execute":"query-status"}"#).contains("\"paused\""))
  }

  @Test("A disk of this host is taken while its guest stands still, and when that is off, without")
  func hostDisk() throws {
    let shop = try Workshop(seed: 79)
    let image = try shop.image("os.raw", 8 << 20)
    let guest = try QEMUGuest(shop, [("os", "raw", image)])
    let first = try shop.strobe(
      "snapshot", "vm", "--disk", "os=\(image)", "--guest-pause", guest.monitor, "--json")
    #expect(first.status == 0, "\(first.errors)")
    let point = try first.json()
    #expect(point["consistency"].text == "CrashConsistent")
    #expect(point["freezeWindowMilliseconds"].number != nil)
    #expect(try guest.ask(#"{"execute":"query-status"}"#).contains("\"running\": true"))
    try guest.ask(#"{"execute":"quit"}"#)
    guest.end()
    let off = try shop.strobe("snapshot", "vm", "--json")
    #expect(off.status == 0 && off.errors.contains("the guest is off"), "\(off.errors)")
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "vm@latest", "--disk", "os=\(copy)").expect(0)
    expectSame(copy, image)
  }

  @Test(
    "Disks that come and go are followed; one that is excluded stays so until it is told otherwise")
  func disks() throws {
    let shop = try Workshop(seed: 71)
    let disks = try images(shop, "os", "data", "swap")
    func names(_ result: Shell.Result) throws -> Set<String> {
      Set(try result.json()["disks"].list.compactMap { $0["name"].text })
    }
    let guest = try QEMUGuest(shop, disks)
    let words = ["snapshot", "vm", "--json"]
    #expect(
      try names(shop.strobe.run(words + ["--qmp", guest.monitor, "--exclude-disk", "swap"]))
        == ["os", "data"])
    #expect(try names(shop.strobe.run(words)) == ["os", "data"])
    #expect(
      try names(shop.strobe.run(words + ["--exclude-disk", "none"])) == ["os", "data", "swap"])
    try shop.strobe.run(words + ["--exclude-disk", "so"]).expect(1, says: "no disk 'so'")
    guest.end()
    let smaller = try QEMUGuest(shop, Array(disks.prefix(1)))
    let result = try shop.strobe.run(words + ["--qmp", smaller.monitor])
    #expect(result.status == 0)
    #expect(try names(result) == ["os"])
    #expect(result.errors.contains("no disk data any more"), "\(result.errors)")
  }

  @Test(
    "What makes no sense is refused with what does",
    arguments: [
      (["--qmp", "GUEST", "--disk", "os=/x"], 2, "found, not named"),
      (["--qmp", "GUEST", "--libvirt", "vm"], 2, "two ways"),
      (["--qmp", "GUEST", "--freeze", "guest"], 2, "--guest-agent SOCKET"),
      (["--qmp", "GUEST", "--freeze", "/"], 2, "--guest-agent SOCKET"),
      (["--qmp", "GUEST", "--guest-pause", "/x"], 2, "--pause"),
      (["--qmp", "GUEST", "--pause", "often"], 2, "auto, never"),
      (["--qmp", "/nonexistent/socket"], 1, "there is no socket"),
      (["--qmp", "FOLDER"], 1, "FOLDER"),
      (["--libvirt", "vm", "--guest-agent", "/x"], 2, "leave --guest-agent out"),
      (["--libvirt", "vm", "--connect", "test:///default"], 1, "libvirt of this machine's QEMU"),
    ] as [([String], Int32, String)])
  func refused(words: [String], status: Int32, says: String) throws {
    let shop = try Workshop(seed: 72)
    let guest = try QEMUGuest(shop, images(shop, "os"))
    let filled = words.map {
      $0.replacing("GUEST", with: guest.monitor).replacing("FOLDER", with: shop.folder.path)
    }
    try shop.strobe.run(["snapshot", "vm"] + filled)
      .expect(status, says: says.replacing("FOLDER", with: shop.folder.path))
    try guest.ask(#"{"execute":"query-status"}"#)
  }

  @Test("A guest that hangs can be given up, before a pass and in it; the next pass clears up")
  func hanging() throws {
    let shop = try Workshop(seed: 78)
    let guest = try QEMUGuest(shop, images(shop, "os"))
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
    func giveUp(_ words: String..., when isReached: () -> Bool) throws {
      let output = shop.file("hanging")
      let pass = try shop.strobe.start(["snapshot", "vm"] + words, output: output)
      try waitUntil("reached") { pass.hasEnded || isReached() }
      usleep(500_000)
      pass.signal(SIGINT)
      #expect(pass.wait() == 130, "\(readText(output + ".err") ?? "")")
      guest.hang(false)
    }
    guest.hang(true)
    try giveUp { true }
    // Between what is prepared and the cut.
    let (hook, mark) = (shop.file("hook"), shop.file("mark"))
    let text = "#!/bin/sh\nkill -STOP \(guest.processID)\necho > \(mark)\n"
    try writeBytes(Array(text.utf8), to: hook)
    try Shell.run("chmod", "755", hook)
    try giveUp("--pre-freeze", hook) { readText(mark) != nil }
    let next = try shop.strobe("snapshot", "vm", "--json").expect(0).json()
    #expect(next["disks"][0]["changeSource"].text == "qemu-bitmap")
  }

  @Test("A monitor that somebody else holds is busy, and the guest unharmed")
  func held() throws {
    let shop = try Workshop(seed: 73)
    let guest = try QEMUGuest(shop, images(shop, "os"))
    let other = try RunningProcess(
      [
        "python3", "-c",
        "import socket,sys,time;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);s.recv(1);print(1,flush=True);time.sleep(60)",
        guest.monitor,
      ],
      environment: [:], output: shop.file("other"))
    try waitUntil("the other is connected") { (readText(shop.file("other.out")) ?? "") != "" }
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(
      1, says: "another client holds it")
    other.signal(SIGKILL)
    other.wait()
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
  }
}
