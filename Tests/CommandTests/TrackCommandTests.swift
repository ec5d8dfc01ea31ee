import ChangeTracking
import Glibc
import Platform
import TestSupport
import Testing

@Suite("strobe track and strobe thaw", .enabled(if: Needs.trackers, Needs.trackerComment))
struct TrackCommandTests {
  @Test("A tracker is started, shown and stopped, by its device or by the collection")
  func life() throws {
    let rig = try Rig(seed: 240)
    let (one, two) = (try rig.device(8).path, try rig.device(8).path)
    let image = try rig.shop.image("disk.raw", 1 << 20)
    let track = { (words: String...) in try rig.strobe.run(["track"] + words) }
    try track("status").expect(0).prints("No tracker is running.")
    #expect(try track("status", "--json").expect(0).json().list.isEmpty)
    try track("start", one).expect(0).prints("Tracking \(one).")
    try track("start", one).expect(0).prints("Tracking already \(one)")
    try track("status").expect(0)
      .prints("DEVICE", "SINCE", "WRITTEN", "COUNTS FROM", "STATE", one, "no point yet", "tracking")
    try rig.shop.write(rig.shop.bytes(4096), to: one)
    #expect(try rig.tracker(of: one)["writtenBytes"].number == 16384)
    #expect(
      try rig.tracker(of: one).keys.isSuperset(of: ["device", "id", "since", "writtenBytes"]))
    let point = try rig.shop.snapshot(
      "--disk", "a=\(one)", "--disk", "b=\(two)", "--disk", "c=\(image)")
    try track("status").expect(0).prints(String(point["id"].text!.prefix(12)), "0 B")
    #expect(try rig.tracker(of: one)["point"].text == point["id"].text)
    try track("stop", "--collection", "web").expect(
      1, says: "are not tracked", "strobe track start")
    try track("start", "--collection", "web").expect(0).prints(
      "Tracking \(one).", "Tracking \(two).")
    #expect(try track("status", "--collection", "web", "--json").expect(0).json().list.count == 2)
    let quiet = try track("stop", "--collection", "web", "--quiet").expect(0)
    #expect(quiet.output == "")
    try track("start", one, two, "--quiet").expect(0)
    try track("stop", "--all").expect(0).prints("Stopped \(one).", "Stopped \(two).")
    try track("stop", "--all").expect(0).prints("No tracker was running.")
    #expect(try FileFacts(path: rig.strobe.trackerFolder) == nil)
  }

  @Test("What can't be tracked is refused with what to do")
  func errors() throws {
    let rig = try Rig(seed: 241)
    let device = try rig.device(8).path
    let image = try rig.shop.image("disk.raw", 1 << 20)
    let track = { (words: String...) in try rig.strobe.run(["track"] + words) }
    try track().expect(2, says: "ACTION")
    try track("begin").expect(2, says: "'begin' is none of start, stop, status")
    try track("start").expect(2, says: "track start needs devices")
    try track("stop").expect(2, says: "track stop needs devices")
    try track("start", "--all").expect(2)
    try track("start", "/nonexistent").expect(1, says: "/nonexistent does not exist")
    try track("start", image).expect(2, says: "\(image) is not a block device")
    try track("start", "/dev/null").expect(2, says: "is not a block device")
    try track("stop", device).expect(1, says: "are not tracked")
    try track("start", "--collection", "none").expect(1, says: "none")
    try rig.shop.snapshot("--disk", "os=\(image)")
    try track("start", "--collection", "web").expect(2, says: "needs devices")
    let none = Strobe(repository: "/nonexistent", trackerFolder: rig.strobe.trackerFolder)
    try none("track", "start", device).expect(0)
    try none("track", "stop", device).expect(0)
    try Shell.run("mkdir", rig.file("elsewhere"))
    let elsewhere = Strobe(
      repository: rig.strobe.repository, trackerFolder: rig.file("elsewhere/x"))
    defer {
      _ = try? Shell.run("umount", rig.file("elsewhere"))
      let locks = TrackerPlace(root: elsewhere.trackerFolder).lockFolder
      _ = try? Shell.run("rm", "-rf", locks)
    }
    try elsewhere("track", "start", device).expect(0)
    try elsewhere("track", "stop", device).expect(0)
  }

  @Test("A tracker whose device is gone is lost, and goes with --all")
  func gone() throws {
    let rig = try Rig(seed: 242)
    let device = try rig.device(8).path
    try rig.strobe("track", "start", device).expect(0)
    try Shell.run("losetup", "--detach", device)
    try rig.strobe("track", "status").expect(3).prints("lost: ")
    let status = try rig.strobe("track", "status", "--json").expect(3).json()
    #expect(status[0]["lost"].text?.isEmpty == false)
    try rig.strobe("track", "stop", "--all").expect(0).prints("Stopped \(device).")
    try rig.strobe("track", "status").expect(0).prints("No tracker is running.")
  }

  @Test("Without a freeze there is nothing to thaw, and what is asked for must be a mount point")
  func thawing() throws {
    let rig = try Rig(seed: 243)
    let system = try rig.fileSystem("ext4")
    try rig.strobe("thaw", system.mountPoint).expect(1, says: "no snapshot left it frozen")
    try rig.strobe("thaw", "/nonexistent").expect(2, says: "/nonexistent is not a mount point")
    try rig.strobe("thaw", rig.shop.folder.path).expect(2, says: "is not a mount point")
    try rig.strobe("thaw", "--force").expect(2, says: "what to thaw")
    let json = try rig.strobe("thaw", system.mountPoint, "--force", "--json").expect(0).json()
    #expect(json["fileSystems"][0]["outcome"].text == "notFrozen")
    #expect(json["fileSystems"][0]["mountPoint"].text == system.mountPoint)
    let none = Strobe(repository: "/nonexistent")
    try none("thaw", system.mountPoint, "--force").expect(0)
  }
}
