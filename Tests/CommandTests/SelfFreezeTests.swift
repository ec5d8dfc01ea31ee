import Platform
import TestSupport
import Testing

@Suite(
  "A snapshot that would freeze what it needs itself",
  .enabled(if: Needs.trackers, Needs.trackerComment))
struct SelfFreezeTests {
  /// Checks that the snapshot is refused before anything is frozen, and that nothing was committed.
  private func expectRefused(
    _ rig: Rig, _ mountPoint: String, _ result: Shell.Result, _ what: String,
    at location: SourceLocation = #_sourceLocation
  ) throws {
    result.expect(
      1, says: "\(mountPoint) would be frozen", what, "would wait for itself", "--freeze none",
      at: location)
    #expect(try !isFrozen(mountPoint), sourceLocation: location)
  }

  @Test(
    "A repository on the disk is refused, also behind a link and on a loop device on a file of it")
  func repository() throws {
    let rig = try Rig(seed: 180)
    let system = try rig.fileSystem("ext4", mebibytes: 96)
    let inner = try rig.loop(on: try rig.image(32, in: system.mountPoint))
    try Rig.make("ext4", on: inner)
    let deep = try rig.mount(inner)
    try Shell.run("ln", "-s", system.mountPoint + "/direct", rig.file("link"))
    try makeDirectories(system.mountPoint + "/direct")
    for place in [system.mountPoint + "/direct", rig.file("link"), deep + "/repository"] {
      let strobe = Strobe(repository: place, trackerFolder: rig.strobe.trackerFolder)
      if place != rig.file("link") { try strobe("init").expect(0) }
      let words = ["snapshot", "web", "--disk", "os=\(system.device)"]
      let inner = place.hasPrefix(deep) ? deep : system.mountPoint
      try expectRefused(rig, inner, strobe.run(words), "is on it")
      #expect(try strobe("list", "--json").json()["collections"][0]["points"].list.isEmpty)
    }
  }

  @Test("The program on the disk is refused")
  func program() throws {
    let rig = try Rig(seed: 181)
    let system = try rig.fileSystem("ext4", mebibytes: 96)
    let program = system.mountPoint + "/strobe"
    try Shell.run("cp", Strobe.program, program)
    let words = [program, "snapshot", "web", "--disk", "os=\(system.device)"]
    try expectRefused(rig, system.mountPoint, rig.run(words), "the strobe program is on it")
    #expect(try rig.run(words + ["--freeze", "none", "--track", "none"]).status == 3)
  }

  @Test("A hook on the disk is refused", arguments: ["--pre-freeze", "--post-thaw"])
  func hook(option: String) throws {
    let rig = try Rig(seed: 182)
    let system = try rig.fileSystem("ext4")
    let hook = system.mountPoint + "/hook"
    try writeBytes(Array("#!/bin/sh\n".utf8), to: hook)
    try Shell.run("chmod", "755", hook)
    let result = try rig.strobe("snapshot", "web", "--disk", "os=\(system.device)", option, hook)
    try expectRefused(rig, system.mountPoint, result, hook)
  }

  @Test("Output that goes to the frozen disk arrives", arguments: [false, true])
  func output(isQuiet: Bool) throws {
    let rig = try Rig(seed: 183)
    let system = try rig.fileSystem("ext4")
    let output = system.mountPoint + "/output"
    for round in 0..<3 {
      let process = try rig.strobe.start(
        ["snapshot", "web", "--disk", "os=\(system.device)", isQuiet ? "--json" : "--track=auto"],
        output: output)
      try waitUntil("ended") { process.hasEnded }
      #expect(process.wait() == 0, "\(round): \(readText(output + ".err") ?? "")")
      #expect(readText(output + ".out")?.contains("FileSystemConsistent") == true)
    }
    #expect(try !isFrozen(system.mountPoint))
  }
}
