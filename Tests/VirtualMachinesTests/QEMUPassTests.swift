import CLinux
import Platform
import TestSupport
import Testing
import VirtualMachines

/// A guest and the way that is chosen for it.
struct WayCase: CustomTestStringConvertible {
  let kind: GuestKind
  let shapes: [DiskShape]
  let mayPause: Bool
  let way: String

  init(_ kind: GuestKind, _ shapes: [DiskShape], mayPause: Bool = true, _ way: String) {
    self.kind = kind
    self.shapes = shapes
    self.mayPause = mayPause
    self.way = way
  }

  var testDescription: String {
    "\(way), \(kind.rawValue), \(shapes.map(\.rawValue)), \(mayPause ? "may" : "mustn't") pause"
  }

  static let all = [
    WayCase(.machine, [.raw, .filteredRaw], mayPause: false, "reopen"),
    WayCase(.machine, [.filteredImage, .raw], mayPause: false, "reopen"),
    WayCase(.machine, [.image, .raw], "copy-before-write"),
    WayCase(.machine, [.drive, .drive], "copy-before-write"),
    WayCase(.machine, [.image], mayPause: false, "copy-before-write"),
    WayCase(.machine, [.image, .raw], mayPause: false, "backup-job"),
    WayCase(.machine, [.drive, .filteredImage], mayPause: false, "backup-job"),
    WayCase(.daemon, [.raw, .filteredRaw, .filteredImage], "reopen"),
    WayCase(.daemon, [.image, .raw], "backup-job"),
  ]

  var readsViews: Bool { way == "reopen" }
  func guest() throws -> TestGuest { try TestGuest(kind, shapes) }
}

@Suite(
  "Passes over QEMU's guests", .serialized, .enabled(if: TestGuest.isPossible, TestGuest.comment))
struct QEMUPassTests {
  private func fill(_ guest: TestGuest, _ byte: UInt8, from first: Int) throws {
    for index in guest.shapes.indices {
      for block in 0..<3 { try guest.write(byte, to: index, at: (first + 7 * block) << 16) }
    }
  }

  @Test(
    "Exports hold the instant of the cut, and bitmaps all that was written since the parent",
    arguments: WayCase.all)
  func pointsInTime(way: WayCase) throws {
    let guest = try way.guest()
    let machine = try guest.machine(trustsViews: way.readsViews)
    var parent: [Content]?
    for point in 1...3 {
      try fill(guest, UInt8(point), from: point)
      let pass = try machine.begin(
        request(
          guest, point: point, parent: point == 1 ? nil : point - 1, mayPause: way.mayPause))
      #expect(pass.way == way.way)
      try fill(guest, UInt8(0x10 + point), from: 20 + point)
      try cut(pass, guest)
      let instant = guest.content
      try fill(guest, UInt8(0x20 + point), from: point)
      let exports = try pass.open()
      try fill(guest, UInt8(0x30 + point), from: 40 + point)
      for (index, export) in exports.enumerated() {
        #expect(export.disk == guest.name(index))
        #expect(try copy(export, guest) == instant[index], "disk \(index), point \(point)")
        if let parent {
          let dirty = blocks(try dirtyRanges(export))
          #expect(dirty.isSuperset(of: instant[index].changed(since: parent[index])))
          #expect(dirty.count <= 15, "\(dirty.sorted())")
        } else {
          #expect(export.bitmap == nil && export.doubt == nil)
        }
      }
      #expect(pass.failure() == nil)
      try pass.close()
      try pass.commit(discredited: [])
      #expect(try leftovers(guest) == [])
      #expect(try bitmaps(guest) == guest.names.map { _ in "\(point)" })
      parent = instant
    }
    for index in guest.shapes.indices { #expect(try guest.holds(index, 0x33, at: 43 << 16)) }
  }

  @Test(
    "A pass that is given back leaves what counts from the parent complete", arguments: WayCase.all)
  func givenBack(way: WayCase) throws {
    let guest = try way.guest()
    let machine = try guest.machine(trustsViews: way.readsViews)
    func begin(_ point: Int, _ parent: Int?) throws -> any GuestPass {
      try machine.begin(request(guest, point: point, parent: parent, mayPause: way.mayPause))
    }
    let first = try begin(1, nil)
    try cut(first, guest)
    let instant = guest.content
    _ = try first.open()
    try first.close()
    try first.commit(discredited: [])
    for attempt in 2...3 {
      try fill(guest, UInt8(attempt), from: attempt)
      let pass = try begin(attempt, 1)
      try cut(pass, guest)
      if attempt == 2 { _ = try pass.open() }
      try fill(guest, 0x40, from: 20 + attempt)
      try pass.close()
      try pass.giveBack()
      #expect(try leftovers(guest) == [])
      #expect(try bitmaps(guest) == guest.names.map { _ in "1" })
    }
    let pass = try begin(4, 1)
    try cut(pass, guest)
    for (index, export) in try pass.open().enumerated() {
      #expect(
        blocks(try dirtyRanges(export)).isSuperset(
          of: guest.content[index].changed(since: instant[index])))
      #expect(try copy(export, guest) == guest.content[index])
    }
    try pass.close()
    try pass.commit(discredited: [guest.name(0)])
    #expect(try bitmaps(guest) == guest.names.dropFirst().map { _ in "4" })
  }

  @Test(
    "A disk keeps its options, and what the guest discards is discarded",
    arguments: ["reopen", "backup-job"])
  func options(way: String) throws {
    let guest = try TestGuest(.daemon, [.tuned, way == "reopen" ? .filteredImage : .image])
    func options() throws -> [JSONValue?] {
      let nodes = try #require(guest.administrator).execute(
        "query-named-block-nodes", ["flat": true]
      ).elements
      let node = try #require(nodes?.first { $0["node-name"] == "vd0" })
      return [node["cache"], node["detect_zeroes"], node["ro"], node["write_threshold"]]
    }
    func size() throws -> Int {
      Int(try #require(try FileFacts(path: guest.folder.file("disk0"))).blocks512) * 512
    }
    let before = try options()
    #expect(before[1] == "unmap" && before[0]?["no-flush"] == true)
    let machine = try guest.machine(trustsViews: way == "reopen")
    for block in 0..<16 { try guest.write(5, to: 0, at: block << 16) }
    for point in 1...2 {
      let pass = try machine.begin(request(guest, point: point))
      #expect(pass.way == way)
      try cut(pass, guest)
      let instant = guest.content
      let full = try size()
      // Zeros, which QEMU makes a hole of.
      try guest.write(0, to: 0, at: (2 * point) << 16)
      #expect(try size() <= full - 64 << 10)
      let exports = try pass.open()
      // What is discarded is what an old QEMU's view gets wrong.
      if way != "reopen" { #expect(try copy(exports[0], guest) == instant[0]) }
      try pass.close()
      try pass.giveBack()
      #expect(try options() == before)
      let left = try size()
      try guest.write(0, to: 0, at: (2 * point + 1) << 16)
      #expect(try size() == left - 64 << 10)
    }
  }

  @Test(
    "Reads that cross what was copied, and zeros that the guest writes, are of the instant",
    arguments: [
      WayCase(.machine, [.image], "copy-before-write"),
      WayCase(.machine, [.raw, .drive], "copy-before-write"),
      WayCase(.machine, [.image, .raw], mayPause: false, "backup-job"),
      WayCase(.daemon, [.tuned], "backup-job"),
      WayCase(.daemon, [.filteredImage, .filteredRaw], "backup-job"),
    ])
  func crossingReads(way: WayCase) throws {
    let guest = try way.guest()
    for index in guest.shapes.indices {
      for block in 0..<64 { try guest.write(5, to: index, at: block << 16) }
    }
    let pass = try guest.machine().begin(request(guest, point: 1, mayPause: way.mayPause))
    #expect(pass.way == way.way)
    try cut(pass, guest)
    let instant = guest.content
    let exports = try pass.open()
    for index in guest.shapes.indices {
      for block in [3, 4, 9, 20] { try guest.write(0, to: index, at: block << 16) }
      for block in [6, 11, 12] { try guest.write(7, to: index, at: block << 16) }
    }
    for (index, export) in exports.enumerated() {
      #expect(try copy(export, guest) == instant[index])
      // Without structured replies, in pieces that cross.
      let script = """
        import nbd
        h = nbd.NBD(); h.set_request_structured_replies(False); h.connect_uri('\(export.uri)')
        b = b''.join(bytes(h.pread(327680, o * 65536)) for o in range(0, 60, 3))
        print(b.count(5) == len(b))
        """
      let read = try Shell.capture(["/usr/bin/python3", "-c", script])
      #expect(read.output == "True\n", "\(read.errors)")
    }
    #expect(pass.failure() == nil)
    try pass.close()
    try pass.giveBack()
  }
}
