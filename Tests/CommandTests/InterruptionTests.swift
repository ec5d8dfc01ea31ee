import Glibc
import Platform
import TestSupport
import Testing

@Suite("Two at once, and commands that are cut off")
struct InterruptionTests {
  private static let size = 48 << 20

  private func shopWithPoint(seed: UInt64) throws -> Workshop {
    let shop = try Workshop(seed: seed)
    let disk = try shop.image("disk.raw", Self.size)
    try shop.snapshot("--disk", "os=\(disk)")
    try refill(shop)
    return shop
  }

  /// Changes every chunk of the disk.
  private func refill(_ shop: Workshop) throws {
    let words = ["bs=1M", "count=\(Self.size >> 20)", "conv=notrunc", "status=none"]
    let result = try Shell.capture(
      ["dd", "if=/dev/urandom", "of=\(shop.file("disk.raw"))"] + words)
    try #require(result.status == 0)
  }

  @Test(
    "A second snapshot of a collection is told who is at it; other collections and readers go on")
  func twoWriters() throws {
    let shop = try shopWithPoint(seed: 70)
    let first = try shop.startAndStop(["snapshot", "web", "--workers", "1"])
    let before = try shop.objects()
    try shop.strobe("snapshot", "web")
      .expect(1, says: "collection web is being written to", "process \(first.id)", "try again")
    #expect(try shop.objects() == before)
    try shop.image("other.raw", 1 << 20)
    try shop.strobe("snapshot", "other", "--disk", "os=\(shop.file("other.raw"))").expect(0)
    try shop.strobe("verify").expect(0)
    try shop.strobe("delete", "web@latest").expect(
      1, says: "is being read or continued", "try again")
    try shop.strobe("gc").expect(0).prints("left because they are in use")
    first.signal(SIGCONT)
    #expect(first.wait() == 0)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(shop.file("target"))").expect(0)
    expectSame(shop.file("target"), shop.file("disk.raw"))
    try shop.expectWhole()
  }

  @Test(
    "A point can't be deleted while it is restored, and gc beside it takes nothing that it needs")
  func deleteWhileRestored() throws {
    let shop = try shopWithPoint(seed: 71)
    try shop.snapshot()
    let target = shop.file("target")
    let restore = try shop.startAndStop([
      "restore", "web@-1", "--workers", "1", "--disk", "os=\(target)",
    ])
    try shop.strobe("delete", "web@-1").expect(1, says: "web@", "is being read", "try again")
    try shop.strobe("delete", "web@latest").expect(0)
    shop.forget(shop.kept[1].point)
    try shop.strobe("gc").expect(0)
    restore.signal(SIGCONT)
    #expect(restore.wait() == 0)
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test(
    "A snapshot that is interrupted commits nothing, and the next goes on with what it stored",
    arguments: [SIGINT, SIGTERM, SIGHUP])
  func interruptedSnapshot(signal: Int32) throws {
    let shop = try shopWithPoint(seed: 72)
    let before = try shop.objects()
    let output = shop.file("output")
    let process = try shop.startAndStop(["snapshot", "web", "--workers", "1"], output: output)
    process.signal(signal)
    process.signal(SIGCONT)
    #expect(process.wait() == 128 + signal)
    let errors = readText(output + ".err") ?? ""
    #expect(errors.hasPrefix("strobe: interrupted; nothing was committed"))
    #expect(readText(output + ".out") == "")
    let left = try shop.objects().subtracting(before)
    #expect(left.allSatisfy { $0.contains("/segments/") })
    #expect(left.isEmpty != errors.contains("kept for the next run; strobe gc --drop-unfinished"))
    try shop.expectWhole()
    let point = try shop.snapshot()
    #expect(left.isEmpty == (point["adoptedBytes"].number == 0))
    try shop.expectWhole()
    #expect(try shop.strobe("gc", "--json").expect(0).json()["bytes"].number == 0)
  }

  @Test("A hang-up that nohup took away interrupts nothing")
  func ignoredHangUp() throws {
    let shop = try shopWithPoint(seed: 77)
    let output = shop.file("output")
    let process = try shop.startAndStop(
      ["nohup", Strobe.program, "snapshot", "web", "--workers", "1"], output: output)
    process.signal(SIGHUP)
    process.signal(SIGCONT)
    #expect(process.wait() == 0)
    try shop.expectWhole()
  }

  @Test(
    "A restore that is interrupted leaves no file under its name, and says what to do",
    arguments: [SIGINT, SIGTERM])
  func interruptedRestore(signal: Int32) throws {
    let shop = try shopWithPoint(seed: 73)
    let output = shop.file("output")
    let target = shop.file("target")
    let process = try shop.startAndStop(
      ["restore", "web@latest", "--workers", "1", "--disk", "os=\(target)"], output: output)
    process.signal(signal)
    process.signal(SIGCONT)
    #expect(process.wait() == 128 + signal)
    #expect(readText(output + ".err")?.hasPrefix("strobe: interrupted") == true)
    #expect(readText(output + ".err")?.contains("nothing was committed") == false)
    #expect(try FileFacts(path: target) == nil)
    let partial = shop.file(".target.strobe-partial")
    let isKept = try FileFacts(path: partial) != nil
    let says = "kept as \(partial): go on with --resume, or remove it"
    #expect(readText(output + ".err")?.contains(says) == isKept)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)", "--resume").expect(0)
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test(
    "An interrupted restore to a device says that it is half written",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func interruptedDevice() throws {
    let shop = try shopWithPoint(seed: 74)
    let device = try LoopDevice(size: Self.size, in: shop.folder)
    let output = shop.file("output")
    let process = try shop.strobe.start(
      ["restore", "web@latest", "--workers", "1", "--disk", "os=\(device.path)"], output: output)
    try waitUntil("written") {
      Int(try Shell.run("stat", "--format=%b", device.backing).filter(\.isNumber))! > 0
        || process.hasEnded
    }
    process.signal(SIGINT)
    if process.wait() == 130 {
      let errors = readText(output + ".err") ?? ""
      #expect(errors.contains("warning: half written: \(device.path)"), "\(errors)")
      #expect(!errors.contains("nothing was committed"), "\(errors)")
    }
    try shop.strobe("restore", "web@latest", "--disk", "os=\(device.path)").expect(0)
    expectSame(device.path, shop.kept[0].copy)
    try shop.expectWhole()
  }

  @Test(
    "Snapshots that are killed at any moment need no repair, and the next one removes their traces",
    arguments: [SIGKILL])
  func killedSnapshots(signal: Int32) throws {
    let shop = try shopWithPoint(seed: 75)
    var generator = SeededGenerator(seed: 75)
    // Cut off between "may have published" and "has": only gc can tell what of theirs is needed.
    var committing: Set<String> = []
    for round in 0..<24 {
      let process: RunningProcess
      try refill(shop)
      if round % 3 == 0 {
        process = try shop.startAndStop(["snapshot", "web", "--workers", "1"]) {
          try self.refill(shop)
        }
      } else {
        process = try shop.strobe.start(["snapshot", "web"])
        usleep(UInt32.random(in: 0..<150_000, using: &generator))
      }
      process.signal(signal)
      process.wait()
      let locks = try namesInDirectory(shop.strobe.repository + "/locks")
      committing.formUnion(locks.filter { $0.hasPrefix("commit-") }.map { String($0.dropFirst(7)) })
      if round % 6 == 0 {
        try shop.strobe("list").expect(0)
        try shop.strobe("verify").expect(0)
      }
    }
    try shop.strobe("verify").expect(0)
    try shop.snapshot()
    let ids = try shop.strobe("list", "--json").expect(0).json()["collections"][0]["points"].list
      .compactMap { $0["id"].text }
    // Segments may be needed: the next pass took over what it could.
    let orphans = try shop.objects().filter { object in
      object.contains("/layers/")
        && !(ids + committing).contains { lastComponent(object).hasPrefix($0) }
    }
    #expect(orphans == [])
    #expect(try shop.journals() == [])
    try shop.strobe("gc").expect(0)
    let kept = try shop.strobe("gc", "--dry-run", "--json").expect(0).json()
    #expect(kept["bytes"].number == 0 && kept["inUse"].number == 0)
    #expect(kept["unfinishedBytes"].number == 0)
    try shop.expectWhole()
  }

  @Test(
    "Restores that are killed leave no file but the partial one, which the next replaces or goes on with"
  )
  func killedRestores() throws {
    let shop = try shopWithPoint(seed: 76)
    let target = shop.file("target")
    for _ in 0..<6 {
      let process = try shop.startAndStop(
        ["restore", "web@latest", "--workers", "1", "--disk", "os=\(target)"])
      process.signal(SIGKILL)
      #expect(process.wait() == 128 + SIGKILL)
      #expect(try FileFacts(path: target) == nil)
      #expect(shop.leftovers() == [shop.file(".target.strobe-partial")])
    }
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)").expect(0)
    expectSame(target, shop.kept[0].copy)
    try shop.expectWhole()
  }
}
