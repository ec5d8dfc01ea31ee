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
    let machine = try guest.machine()
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
    let machine = try guest.machine()
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

  @Test("A disk keeps its options, and what the guest discards is discarded", arguments: [1, 2])
  func options(count: Int) throws {
    let guest = try TestGuest(.daemon, [.tuned, count == 1 ? .image : .filteredImage])
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
    let machine = try guest.machine()
    for block in 0..<16 { try guest.write(5, to: 0, at: block << 16) }
    for point in 1...2 {
      let pass = try machine.begin(request(guest, point: point))
      #expect(pass.way == (count == 1 ? "backup-job" : "reopen"))
      try cut(pass, guest)
      let instant = guest.content
      let full = try size()
      // Zeros, which QEMU makes a hole of.
      try guest.write(0, to: 0, at: (2 * point) << 16)
      #expect(try size() <= full - 64 << 10)
      let exports = try pass.open()
      #expect(try copy(exports[0], guest) == instant[0])
      try pass.close()
      try pass.giveBack()
      #expect(try options() == before)
      let left = try size()
      try guest.write(0, to: 0, at: (2 * point + 1) << 16)
      #expect(try size() == left - 64 << 10)
    }
  }
}
