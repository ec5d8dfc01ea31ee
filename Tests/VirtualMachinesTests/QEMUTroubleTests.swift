import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

@Suite(
  "QEMU's guests in trouble", .serialized, .enabled(if: TestGuest.isPossible, TestGuest.comment))
struct QEMUTroubleTests {
  /// A small file system for scratch images.
  private final class SmallPlace {
    let path: String
    private let folder = TemporaryDirectory(in: "/dev/shm")

    init(mebibytes: Int) throws {
      path = folder.file("small")
      try makeDirectories(path)
      try Shell.run("mount", "-t", "tmpfs", "-o", "size=\(mebibytes)m", "tmpfs", path)
    }

    func fill(leaving bytes: Int) throws {
      let text = try Shell.run("stat", "-f", "-c", "%a %S", path)
      let numbers = text.split { $0 == " " || $0 == "\n" }.compactMap { Int($0) }
      try Shell.run(
        "fallocate", "-l", "\(numbers[0] * numbers[1] - bytes)", path + "/filler-\(bytes)")
    }

    deinit { _ = try? Shell.run("umount", "--lazy", path) }
  }

  @Test(
    "Scratch space that runs out ends the pass and not the guest",
    arguments: [
      WayCase(.machine, [.raw, .filteredImage], "reopen"),
      WayCase(.machine, [.image, .drive], "copy-before-write"),
      WayCase(.daemon, [.raw], "reopen"),
    ])
  func noSpace(way: WayCase) throws {
    let guest = try way.guest()
    // Zeros need no space.
    for block in 0..<32 { try guest.write(3, to: 0, at: block << 16) }
    let place = try SmallPlace(mebibytes: 12)
    let machine = try guest.machine(trustsViews: way.readsViews)
    let pass = try machine.begin(request(guest, point: 1, scratch: place.path))
    #expect(pass.way == way.way)
    try cut(pass, guest)
    _ = try pass.open()
    #expect(pass.failure() == nil)
    try place.fill(leaving: 512 << 10)
    for block in 0..<32 { try guest.write(9, to: 0, at: block << 16) }
    let fault = try #require(pass.failure())
    #expect(fault.contains("scratch space") && fault.contains("vd0"), "\(fault)")
    try pass.close()
    try pass.giveBack()
    #expect(try guest.holds(0, 9, at: 31 << 16))
    if way.kind == .machine { #expect(try machine.status() == "running") }
    #expect(try leftovers(guest) == [] && bitmaps(guest) == [])
  }

  @Test(
    "A job that could stop the guest needs room for all of the disks; the refusal says what helps")
  func noRoom() throws {
    let guest = try TestGuest(.machine, [.image, .drive])
    let place = try SmallPlace(mebibytes: 12)
    try place.fill(leaving: 8 << 20)
    let error = try #require(throws: StrobeError.self) {
      try guest.machine().begin(
        request(guest, point: 1, mayPause: false, scratch: place.path))
    }
    #expect(error.reason == .refused && error.description.contains("paused"), "\(error)")
    #expect(try leftovers(guest) == [])
    let machine = try guest.machine()
    let pass = try machine.begin(request(guest, point: 1, scratch: place.path))
    #expect(pass.needsPause)
    try pass.close()
    try place.fill(leaving: 1 << 20)
    let filters = try #require(throws: StrobeError.self) {
      try machine.begin(request(guest, point: 1, scratch: place.path))
    }
    #expect(filters.reason == .refused, "\(filters)")
  }

  @Test("Filters of several disks don't get into the way of a guest that runs")
  func notPaused() throws {
    let guest = try TestGuest(.machine, [.image, .drive])
    let pass = try guest.machine().begin(request(guest, point: 1))
    let error = try #require(throws: StrobeError.self) { try pass.cut() }
    #expect(error.reason == .refused && error.message.contains("paused"), "\(error)")
    try pass.close()
    #expect(try leftovers(guest) == [] && bitmaps(guest) == [])
  }

  @Test("A disk that is taken away ends the pass", arguments: [true, false])
  func unplugged(mayPause: Bool) throws {
    let guest = try TestGuest(
      .machine, [.image],
      extra: [
        "-device", "virtio-scsi-pci,id=scsi",
        "-blockdev", "driver=null-co,node-name=zero,size=4194304,read-zeroes=on",
        "-device", "scsi-hd,drive=zero,id=sd,bus=scsi.0",
      ])
    let machine = try guest.machine()
    let pass = try machine.begin(
      request(guest, point: 1, disks: ["sd", "vd0"], mayPause: mayPause))
    #expect(pass.needsPause == mayPause)
    try cut(pass, guest)
    _ = try pass.open()
    #expect(pass.failure() == nil)
    try #require(guest.administrator).execute("device_del", ["id": "sd"])
    usleep(200_000)
    #expect(pass.failure() == "disk sd was taken away from the guest")
    try pass.close()
    try pass.giveBack()
    #expect(try machine.status() == "running" && leftovers(guest) == [])
    let later = try machine.begin(request(guest, point: 1, mayPause: mayPause))
    #expect(machine.disks.map(\.name) == ["vd0"])
    try later.close()
  }

  @Test("A cut that fails halfway leaves no disk behind its filter, and no bitmap")
  func halfCut() throws {
    let guest = try TestGuest(
      .machine, [.image],
      extra: [
        "-device", "virtio-scsi-pci,id=scsi",
        "-blockdev", "driver=null-co,node-name=zero,size=4194304,read-zeroes=on",
        "-device", "scsi-hd,drive=zero,id=sd,bus=scsi.0",
      ])
    let administrator = try #require(guest.administrator)
    let machine = try guest.machine()
    let pass = try machine.begin(request(guest, point: 1, disks: ["vd0", "sd"]))
    try administrator.execute("device_del", ["id": "sd"])
    usleep(200_000)
    try guest.pause()
    let error = try #require(throws: StrobeError.self) { try pass.cut() }
    #expect(error.message.contains("qom-set"), "\(error)")
    let blocks = try administrator.execute("query-block").elements ?? []
    #expect(blocks.map { $0["inserted"]?["node-name"]?.text } == ["node0"])
    #expect(try bitmaps(guest) == [])
    try guest.letGoOn()
    try pass.close()
    try pass.giveBack()
    #expect(try leftovers(guest) == [])
  }

  @Test("A guest that was let go on during the cut is noticed")
  func letGoOnMeanwhile() throws {
    let guest = try TestGuest(.machine, [.image, .drive])
    let machine = try guest.machine()
    let pass = try machine.begin(request(guest, point: 1))
    try guest.pause()
    // As the guardian does it: on the engine's own connection, without waiting.
    let command = Array("{\"execute\":\"cont\",\"id\":\"strobe-guardian\"}\n".utf8)
    let sent = unsafe command.withUnsafeBytes {
      unsafe write(machine.monitor.number, $0.baseAddress, $0.count)
    }
    #expect(sent == command.count)
    let error = try #require(throws: StrobeError.self) { try pass.cut() }
    #expect(error.message.contains("paused"), "\(error)")
    #expect(try bitmaps(guest) == [])
    try pass.close()
    #expect(try machine.status() == "running" && leftovers(guest) == [])
  }

  @Test(
    "A disk that changes its size while it is read ends the pass, where QEMU doesn't refuse it",
    arguments: [
      WayCase(.machine, [.raw], "reopen"), WayCase(.machine, [.image], "copy-before-write"),
      WayCase(.daemon, [.image], "backup-job"),
    ])
  func resized(way: WayCase) throws {
    let guest = try way.guest()
    let machine = try guest.machine(trustsViews: way.readsViews)
    let pass = try machine.begin(request(guest, point: 1))
    #expect(pass.way == way.way)
    try cut(pass, guest)
    let exports = try pass.open()
    let node = way.kind == .machine ? "node0" : "vd0"
    let administrator = try #require(guest.administrator)
    let answer = try administrator.ask(
      "block_resize", ["node-name": .string(node), "size": 8_388_608])
    if case .failure = answer {
      #expect(try pass.failure() == nil && copy(exports[0], guest) == guest.content[0])
    } else {
      #expect(try #require(pass.failure()).contains("got another size: 8388608 bytes"))
    }
    try pass.close()
    try administrator.execute("block_resize", ["node-name": .string(node), "size": 8_388_608])
    let later = try machine.begin(request(guest, point: 1))
    #expect(machine.disks[0].size == 8_388_608)
    try later.close()
  }

  @Test("An export or a job that somebody else ends is noticed", arguments: ["export", "job"])
  func interfered(what: String) throws {
    let guest = try TestGuest(.daemon, [.image])
    let pass = try guest.machine().begin(request(guest, point: 1))
    try cut(pass, guest)
    _ = try pass.open()
    let administrator = try #require(guest.administrator)
    let names = try leftovers(guest)
    if what == "export" {
      let export = try #require(names.first { $0.hasSuffix("-e0") })
      try administrator.execute("block-export-del", ["id": .string(export), "mode": "hard"])
    } else {
      let job = try #require(names.first { $0.hasSuffix("-j0") })
      try administrator.execute("job-cancel", ["id": .string(job)])
    }
    usleep(200_000)
    let fault = try #require(pass.failure())
    #expect(fault.contains("vd0"), "\(fault)")
    try pass.close()
    #expect(try leftovers(guest) == [])
  }

  @Test("A guest that ends takes everything with it", arguments: GuestKind.allCases)
  func ended(kind: GuestKind) throws {
    let guest = try TestGuest(kind, [.raw])
    let pass = try guest.machine().begin(request(guest, point: 1))
    try cut(pass, guest)
    _ = try pass.open()
    guest.kill()
    #expect(try #require(pass.failure()).contains("QEMU ended"))
    try pass.close()
    try pass.giveBack()
    try pass.close()
    #expect(try namesInDirectory(guest.folder.path).allSatisfy { !$0.hasPrefix("strobe-") })
  }

  @Test("A server that somebody else started is left to them")
  func foreignServer() throws {
    let guest = try TestGuest(.machine, [.raw])
    let administrator = try #require(guest.administrator)
    try administrator.execute(
      "nbd-server-start",
      ["addr": ["type": "unix", "data": ["path": .string(guest.folder.file("theirs"))]]])
    let error = try #require(throws: StrobeError.self) {
      try guest.machine().begin(request(guest, point: 1))
    }
    #expect(error.reason == .busy && error.message.contains("NBD server"), "\(error)")
    #expect(try leftovers(guest) == [])
    try administrator.execute("nbd-server-stop")
  }

  @Test("What QEMU records outlives its orderly end in an image, and nothing else does")
  func restarts() throws {
    let guest = try TestGuest(.daemon, [.filteredImage, .raw])
    func pass(_ point: Int, _ parent: Int?) throws -> [GuestExport] {
      let pass = try guest.machine().begin(request(guest, point: point, parent: parent))
      try cut(pass, guest)
      let exports = try pass.open()
      for (index, export) in exports.enumerated() {
        #expect(try copy(export, guest) == guest.content[index])
      }
      if exports[0].bitmap != nil { #expect(try blocks(dirtyRanges(exports[0])) == [point]) }
      try pass.close()
      try pass.commit(discredited: [])
      return exports
    }
    _ = try pass(1, nil)
    let identities = try guest.machine().disks.map(\.identity)
    try guest.write(1, to: 0, at: 2 << 16)
    try guest.restart()
    #expect(try guest.machine().disks.map(\.identity) == identities)
    let after = try pass(2, 1)
    #expect(after[0].bitmap != nil)
    #expect(try #require(after[1].doubt).contains("no complete record"))
    try guest.write(1, to: 0, at: 3 << 16)
    try guest.restart()
    try guest.write(2, to: 0, at: 3 << 16)
    try guest.crash()
    let killed = try pass(3, 2)
    #expect(try #require(killed[0].doubt).contains("killed"))
    try guest.write(1, to: 0, at: 4 << 16)
    #expect(try pass(4, 3).allSatisfy { $0.doubt == nil })
  }

  @Test("Long paths and a QEMU without rights are no hindrance")
  func places() throws {
    let scratch = TemporaryDirectory(in: "/dev/shm")
    unsafe #expect(chmod(scratch.path, 0o711) == 0)
    let long = scratch.file(String(repeating: "long", count: 30))
    try makeDirectories(long)
    unsafe #expect(chmod(long, 0o711) == 0)
    let guest = try TestGuest(.machine, [.image, .raw], extra: ["-runas", "nobody"])
    for place in [scratch.path, long] {
      for mayPause in [true, false] {
        let pass = try guest.machine().begin(
          request(guest, point: 1, mayPause: mayPause, scratch: place))
        try cut(pass, guest)
        for (index, export) in try pass.open().enumerated() {
          #expect(try copy(export, guest) == guest.content[index])
        }
        try pass.close()
        try pass.giveBack()
        #expect(try namesInDirectory(place).allSatisfy { !$0.hasPrefix("strobe-") })
      }
    }
    #expect(
      try namesInDirectory("/run").allSatisfy {
        !$0.hasPrefix("strobe-\(guest.collection.prefix(8))")
      })
  }
}
