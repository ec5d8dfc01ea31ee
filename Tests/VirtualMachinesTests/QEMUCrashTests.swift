import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

/// How far a pass came before it was killed.
enum CrashStep: String, CaseIterable, CustomTestStringConvertible {
  case begun, cut, open, exportsEnded, closed

  var testDescription: String { rawValue }
}

@Suite(
  "What killed passes leave in QEMU", .serialized,
  .enabled(if: TestGuest.isPossible, TestGuest.comment))
struct QEMUCrashTests {
  private static let cases = [
    WayCase(.machine, [.raw, .filteredImage], "reopen"),
    WayCase(.machine, [.image, .drive], "copy-before-write"),
    WayCase(.machine, [.image, .drive], mayPause: false, "backup-job"),
    WayCase(.daemon, [.raw, .filteredImage], "reopen"),
    WayCase(.daemon, [.image, .raw], "backup-job"),
  ]

  private func firstPoint(_ guest: TestGuest, _ way: WayCase) throws -> [Content] {
    let machine = try guest.machine(trustsViews: way.readsViews)
    let pass = try machine.begin(request(guest, point: 1, mayPause: way.mayPause))
    try cut(pass, guest)
    let instant = guest.content
    _ = try pass.open()
    try pass.close()
    try pass.commit(discredited: [])
    return instant
  }

  /// A pass that ends at `step`, with the connection.
  private func crash(_ guest: TestGuest, _ way: WayCase, at step: CrashStep, point: Int) throws {
    let machine = try guest.machine(trustsViews: way.readsViews)
    let pass = try machine.begin(
      request(guest, point: point, parent: 1, mayPause: way.mayPause))
    if step == .begun { return }
    try cut(pass, guest)
    if step == .cut { return }
    _ = try pass.open()
    if step == .open { return }
    if step == .exportsEnded {
      try #require(guest.administrator).execute("nbd-server-stop")
      return
    }
    try pass.close()
  }

  @Test(
    "Whatever the step, the next pass takes it away and finds all changes since the parent",
    arguments: cases, CrashStep.allCases)
  func everyStep(way: WayCase, step: CrashStep) throws {
    let guest = try way.guest()
    let instant = try firstPoint(guest, way)
    for round in 0..<2 {
      for index in guest.shapes.indices { try guest.write(7, to: index, at: (3 + round) << 16) }
      try crash(guest, way, at: step, point: 2 + round)
      // Through the filter that was left.
      for index in guest.shapes.indices { try guest.write(8, to: index, at: (13 + round) << 16) }
      #expect(try step == .closed || !leftovers(guest).isEmpty)
    }
    let machine = try guest.machine(trustsViews: way.readsViews)
    #expect(machine.disks.map(\.name) == guest.names)
    let pass = try machine.begin(request(guest, point: 9, parent: 1, mayPause: way.mayPause))
    #expect(try bitmaps(guest) == guest.names.map { _ in "1" })
    try cut(pass, guest)
    for (index, export) in try pass.open().enumerated() {
      let expected = guest.content[index]
      #expect(try copy(export, guest) == expected)
      let dirty = blocks(try dirtyRanges(export))
      #expect(dirty == expected.changed(since: instant[index]), "disk \(index)")
    }
    try pass.close()
    try pass.commit(discredited: [])
    #expect(try leftovers(guest) == [])
    #expect(try bitmaps(guest) == guest.names.map { _ in "9" })
  }

  @Test("A pass that is committed nowhere but in the repository counts from its point")
  func committedPoint() throws {
    let way = Self.cases[3]
    let guest = try way.guest()
    _ = try firstPoint(guest, way)
    try crash(guest, way, at: .closed, point: 2)
    try guest.write(1, to: 0, at: 5 << 16)
    let pass = try guest.machine(trustsViews: true).begin(request(guest, point: 3, parent: 2))
    try cut(pass, guest)
    #expect(try pass.open().map { blocks(try dirtyRanges($0)) } == [[5], []])
    try pass.close()
    try pass.commit(discredited: [])
    #expect(try bitmaps(guest) == ["3", "3"])
  }

  @Test("Without a known parent nothing sound is thrown away before the commit")
  func unknownParent() throws {
    let way = Self.cases[0]
    let guest = try way.guest()
    _ = try firstPoint(guest, way)
    try guest.write(1, to: 0, at: 5 << 16)
    try crash(guest, way, at: .open, point: 2)
    try guest.write(1, to: 0, at: 6 << 16)
    let machine = try guest.machine(trustsViews: way.readsViews)
    let full = try machine.begin(request(guest, point: 3))
    try cut(full, guest)
    _ = try full.open()
    try full.close()
    try full.giveBack()
    #expect(try bitmaps(guest) == ["1", "1"])
    let pass = try machine.begin(request(guest, point: 4, parent: 1))
    try cut(pass, guest)
    #expect(try pass.open().map { blocks(try dirtyRanges($0)) } == [[5, 6], []])
    try pass.close()
    try pass.giveBack()
  }

  @Test("Bitmaps of another collection are left alone")
  func otherCollection() throws {
    let way = Self.cases[0]
    let guest = try way.guest()
    _ = try firstPoint(guest, way)
    let pass = try guest.machine().begin(
      request(guest, point: 5, collection: hexadecimal(randomBytes(12))))
    try cut(pass, guest)
    try pass.close()
    try pass.commit(discredited: [])
    #expect(try bitmaps(guest) == ["1", "1", "5", "5"])
  }

  @Test("Who lives isn't disturbed; what the dead left is taken away, whosever it was")
  func owners() throws {
    let guest = try TestGuest(.machine, [.raw])
    let administrator = try #require(guest.administrator)
    func add(_ process: Int, _ start: Int) throws -> String {
      let name =
        "strobe-0123abcd-" + String(process, radix: 36) + "." + String(start, radix: 36) + "-o0"
      try administrator.execute(
        "blockdev-add", ["driver": "null-co", "node-name": .string(name), "read-zeroes": true])
      return name
    }
    let text = try #require(readText("/proc/1/stat"))
    let fields = try #require(text.split(separator: ")").last).split(separator: " ")
    let start = try #require(Int(fields[19])) % (36 * 36 * 36 * 36)
    let living = try add(1, start)
    let error = try #require(throws: StrobeError.self) {
      try guest.machine().begin(request(guest, point: 1))
    }
    #expect(error.reason == .busy && error.message.contains("process 1 "), "\(error)")
    #expect(try leftovers(guest) == [living])
    try administrator.execute("blockdev-del", ["node-name": .string(living)])

    _ = try add(1, start + 1)
    let pass = try guest.machine().begin(request(guest, point: 1))
    #expect(try !leftovers(guest).contains { $0.contains("0123abcd") })
    let other = try #require(throws: StrobeError.self) {
      try QEMUMachine(socket: guest.folder.file("qmp3"), milliseconds: 60_000)
        .begin(request(guest, point: 1, collection: hexadecimal(randomBytes(12))))
    }
    #expect(other.reason == .busy, "\(other)")
    try pass.close()
    #expect(try leftovers(guest) == [])
  }
}
