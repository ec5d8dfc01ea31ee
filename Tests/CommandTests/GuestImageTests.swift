import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Images of a guest that were changed while it was off, and records of changes that say nothing of it",
  .enabled(if: QEMUGuest.isPossible, "needs qemu-system-x86 and qemu-utils"))
struct GuestImageTests {
  /// So large that the sample of 64 chunks finds one changed chunk once in a hundred times.
  private static let size = "512M"
  private static let place = 100 << 20

  private func make(_ image: String, _ words: String...) throws -> String {
    let result = try Shell.capture(
      ["qemu-img", "create", "-q", "-f", "qcow2"] + words + [image, Self.size])
    try #require(result.status == 0, "\(result.errors)")
    return image
  }

  private func expectRestored(_ shop: Workshop, _ image: String, _ disk: String) throws {
    let copy = shop.file("restored-" + hexadecimal(randomBytes(4)))
    try shop.strobe("restore", "vm@latest", "--disk", "\(disk)=\(copy)").expect(0)
    let result = try Shell.capture(
      ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", copy, image, "-U"])
    #expect(result.status == 0, "\(disk): \(result.output)\(result.errors)")
  }

  private func snapshot(_ shop: Workshop, _ guest: QEMUGuest) throws -> JSON {
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor, "--json").expect(0).json()
  }

  @Test(
    "One that was copied over another, or took its name, brings a record along that is the other's",
    arguments: [false, true])
  func copied(isRenamed: Bool) throws {
    let shop = try Workshop(seed: 90)
    let images = try (make(shop.file("os.qcow2")), make(shop.file("data.qcow2")))
    // By relative names QEMU's images are known by their names only.
    let disks = [
      ("data", "qcow2", isRenamed ? "data.qcow2" : images.1),
      ("os", "qcow2", isRenamed ? "os.qcow2" : images.0),
    ]
    var guest = try QEMUGuest(shop, disks, in: shop.folder.path)
    try guest.write("os", pattern: 1, at: Self.place, count: 4096)
    try guest.write("data", pattern: 2, at: Self.place, count: 4096)
    _ = try snapshot(shop, guest)
    try guest.quit()
    if isRenamed {
      try Shell.run("mv", images.0, shop.file("away"))
      try Shell.run("mv", images.1, images.0)
      try Shell.run("mv", shop.file("away"), images.1)
    } else {
      try Shell.run("cp", images.0, images.1)
    }
    guest = try QEMUGuest(shop, disks, in: shop.folder.path)
    let point = try snapshot(shop, guest)
    let data = try #require(point["disks"].list.first { $0["name"].text == "data" })
    #expect(data["changeSource"].text == "scan" && data["changedChunks"].number == 1)
    #expect(data["scanReason"].text?.contains("that of another disk") == true)
    try expectRestored(shop, images.0, "os")
    try expectRestored(shop, images.1, "data")
    let next = try snapshot(shop, guest)
    #expect(next["disks"].list.allSatisfy { $0["changeSource"].text == "qemu-bitmap" })
  }

  @Test("One that lies over another one now is read whole; over the same one, only its changes")
  func otherBackingFile() throws {
    let shop = try Workshop(seed: 91)
    var below: [String] = []
    for pattern in [1, 2] {
      below.append(try make(shop.file("below\(pattern).qcow2")))
      try Shell.run(
        "qemu-io", "-f", "qcow2", "-c", "write -P \(pattern) \(Self.place) 4096", below[pattern - 1]
      )
    }
    let image = try make(shop.file("os.qcow2"), "-b", below[0], "-F", "qcow2")
    let disks = [("os", "qcow2", image)]
    var guest = try QEMUGuest(shop, disks)
    _ = try snapshot(shop, guest)
    try guest.quit()
    guest = try QEMUGuest(shop, disks)
    #expect(try snapshot(shop, guest)["disks"][0]["changeSource"].text == "qemu-bitmap")
    try guest.quit()
    try Shell.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below[1], "-F", "qcow2", image)
    guest = try QEMUGuest(shop, disks)
    let disk = try snapshot(shop, guest)["disks"][0]
    #expect(disk["changeSource"].text == "scan" && disk["changedChunks"].number == 1)
    try expectRestored(shop, image, "os")
    try guest.quit()
    // The same file, with other content.
    try Shell.run("qemu-io", "-f", "qcow2", "-c", "write -P 3 \(Self.place) 4096", below[1])
    guest = try QEMUGuest(shop, disks)
    #expect(try snapshot(shop, guest)["disks"][0]["changedChunks"].number == 1)
    try expectRestored(shop, image, "os")
  }

  @Test("One whose data lie in another file keeps no record of changes beyond QEMU's end")
  func dataFile() throws {
    let shop = try Workshop(seed: 92)
    let data = shop.file("os.data")
    let image = try make(shop.file("os.qcow2"), "-o", "data_file=\(data),data_file_raw=on")
    let disks = [("os", "qcow2", image)]
    var guest = try QEMUGuest(shop, disks)
    _ = try snapshot(shop, guest)
    try guest.write("os", pattern: 1, at: Self.place, count: 4096)
    #expect(try snapshot(shop, guest)["disks"][0]["changeSource"].text == "qemu-bitmap")
    try guest.quit()
    try shop.write(shop.bytes(4096), to: data, at: Self.place)
    guest = try QEMUGuest(shop, disks)
    #expect(try snapshot(shop, guest)["disks"][0]["changedChunks"].number == 1)
    try expectRestored(shop, image, "os")
  }

  @Test("A disk that is a part of an image has the writes where it shows them")
  func part() throws {
    let shop = try Workshop(seed: 93)
    let image = try make(shop.file("os.qcow2"))
    let guest = try QEMUGuest(
      shop, [],
      more: [
        "-blockdev", "driver=qcow2,node-name=whole,file.driver=file,file.filename=\(image)",
        "-blockdev", "driver=raw,node-name=part,offset=1048576,size=268435456,file=whole",
        "-device", "virtio-blk-pci,drive=part,id=os",
      ])
    _ = try snapshot(shop, guest)
    try guest.write("os", pattern: 1, at: Self.place, count: 4096)
    let disk = try snapshot(shop, guest)["disks"][0]
    #expect(disk["changeSource"].text == "qemu-bitmap" && disk["changedChunks"].number == 1)
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "vm@latest", "--disk", "os=\(copy)").expect(0)
    try Shell.run("qemu-io", "-f", "raw", "-c", "read -P 1 \(Self.place) 4096", copy)
    try Shell.run("qemu-io", "-f", "raw", "-c", "read -P 0 0 \(Self.place)", copy)
  }

  @Test(
    "What the guest discards while its disks are read was there at the cut",
    .enabled(if: Machine.has("nbdkit"), "needs nbdkit"))
  func discards() throws {
    let shop = try Workshop(seed: 94)
    let count = 1024
    let image = try shop.image("os.raw", count << 16)
    // Whether there are zeros is answered late, as over a network: in between the guest goes on.
    let server = try NBDServer.nbdkit(
      shop, "--filter=delay", "file", image, "delay-extents=40ms")
    let guest = try QEMUGuest(
      shop, [],
      more: [
        "-blockdev",
        "driver=raw,node-name=node,discard=unmap,file.driver=nbd,file.discard=unmap,"
          + "file.server.type=unix,file.server.path=\(server.socket)",
        "-device", "virtio-blk-pci,drive=node,id=os",
      ])
    // Sixteen places, each going on where it is: QEMU answers for a whole run of zeros at once.
    let order = (0..<count).map { $0 % 16 * 64 + $0 / 16 }
    let writer = try RunningProcess(
      [
        "python3", "-c", Self.writer, guest.own, "\(order)",
      ], environment: [:], output: shop.file("writer"))
    try waitUntil("the guest writes") { (readText(shop.file("writer.out")) ?? "") != "" }
    _ = try snapshot(shop, guest)
    writer.signal(SIGKILL)
    writer.wait()
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "vm@latest", "--disk", "os=\(copy)").expect(0)
    let bytes = try readFile(copy)
    let isZero = order.map { chunk in
      bytes[(chunk << 16)..<((chunk + 1) << 16)].allSatisfy { $0 == 0 }
    }
    let last = try #require(isZero.lastIndex(of: true))
    // A few are on their way side by side.
    let wrong = isZero.prefix(max(0, last - 16)).indices.filter { !isZero[$0] }
    #expect(
      wrong.isEmpty, "number \(last) was discarded after the cut: \(wrong.count) before it weren't")
  }

  /// Zeroes chunks in an order that it is told, one after the other, without waiting for any.
  private static let writer = """
    import json, socket, sys, time
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile("rw"); f.readline()
    def call(**command):
        f.write(json.dumps(command) + "\\n"); f.flush()
        while "return" not in f.readline(): pass
    call(execute="qmp_capabilities")
    for number, chunk in enumerate(json.loads(sys.argv[2])):
        line = f'qemu-io -d /machine/peripheral/os/virtio-backend "aio_write -z -u {chunk << 16} 65536"'
        call(execute="human-monitor-command", arguments={"command-line": line})
        if number == 8: print("begun", flush=True)
        time.sleep(0.003)
    """
}
