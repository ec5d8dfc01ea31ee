import Glibc
import Platform
import TestSupport
import Testing

@Suite("Hooks of a snapshot", .enabled(if: Needs.trackers, Needs.trackerComment))
struct HookTests {
  /// A hook that adds a line to `log` and then does what `body` says.
  private func hook(_ rig: Rig, _ name: String, _ body: String = "") throws -> String {
    // Below /tmp, which root owns; hooks in /dev/shm are as good.
    let path = rig.file(name)
    let text = """
      #!/bin/sh
      echo "$STROBE_PHASE" >> \(rig.file("log"))
      \(body)

      """
    try writeBytes(Array(text.utf8), to: path)
    try Shell.run("chmod", "755", path)
    return path
  }

  private func log(_ rig: Rig) -> [String] {
    (readText(rig.file("log")) ?? "").split(separator: "\n").map(String.init)
  }

  @Test("Hooks run around the freeze and are told what it is about")
  func order() throws {
    let rig = try Rig(seed: 220)
    let system = try rig.fileSystem("ext4")
    let write = "echo written > \(system.mountPoint)/$STROBE_PHASE; env; echo said >&2"
    let hook = try hook(rig, "hook", write)
    let result = try rig.strobe(
      "snapshot", "web", "--disk", "os=\(system.device)", "--pre-freeze", hook, "--post-thaw", hook,
      "--json")
    let point = try result.expect(0).json()
    #expect(point["consistency"].text == "ApplicationConsistent")
    #expect(log(rig) == ["pre-freeze", "post-thaw"])
    let hooks = point["hooks"].list
    #expect(hooks.compactMap { $0["phase"].text } == ["pre-freeze", "post-thaw"])
    for hook in hooks {
      let output = try #require(hook["output"].text)
      #expect(hook["failure"].text == nil && hook["attempts"].number == 1)
      for line in [
        "STROBE_COLLECTION=web", "STROBE_POINT=\(point["id"].text!)",
        "STROBE_DISKS=os=\(system.device)", "STROBE_DEADLINE=", "said",
      ] { #expect(output.contains(line), "\(output)") }
      #expect(!output.contains("STROBE_REPOSITORY"))
    }
    try rig.strobe("show", "web@latest").expect(0)
      .prints("Hook           pre-freeze \(hook): done, 1 attempt", "| said")
    // What pre-freeze wrote is in the point, what post-thaw wrote is not.
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("clean"))", "-q").expect(0)
    try rig.expectClean("ext4", rig.file("clean"))
    let copy = try rig.mount(try rig.loop(on: rig.file("clean")))
    #expect(readText(copy + "/pre-freeze") == "written")
    #expect(try FileFacts(path: copy + "/post-thaw") == nil)
  }

  @Test("A hook that fails ends the pass, and post-thaw runs all the same")
  func abort() throws {
    let rig = try Rig(seed: 221)
    let system = try rig.fileSystem("ext4")
    let bad = try hook(rig, "bad", "echo why it failed; exit 7")
    let good = try hook(rig, "good")
    let words = ["snapshot", "web", "--disk", "os=\(system.device)"]
    try rig.strobe.run(words + ["--pre-freeze", bad, "--post-thaw", good])
      .expect(
        1, says: "the pre-freeze hook \(bad) ended with status 7", "why it failed",
        "nothing was committed")
    #expect(log(rig) == ["pre-freeze", "post-thaw"])
    try rig.strobe.run(words + ["--pre-freeze", good, "--post-thaw", bad])
      .expect(1, says: "the post-thaw hook \(bad) ended with status 7", "nothing was committed")
    try rig.strobe.run(words + ["--pre-freeze", bad, "--hook-retries", "2"]).expect(1)
    #expect(log(rig).count == 7)
    #expect(try rig.strobe("list", "--json").json()["collections"][0]["points"].list.isEmpty)
    #expect(try !isFrozen(system.mountPoint))
    #expect(rig.shop.leftovers() == [])
  }

  @Test("With --hook-failure continue the point is FileSystemConsistent and says why")
  func goOn() throws {
    let rig = try Rig(seed: 222)
    let system = try rig.fileSystem("ext4")
    let bad = try hook(rig, "bad", "exit 7")
    let good = try hook(rig, "good")
    for hooks in [
      ["--pre-freeze", bad, "--post-thaw", good], ["--pre-freeze", good, "--post-thaw", bad],
      ["--pre-freeze", bad],
    ] {
      let result = try rig.strobe.run(
        [
          "snapshot", "web", "--disk", "os=\(system.device)", "--hook-failure", "continue",
          "--json",
        ]
          + hooks)
      result.expect(3, says: "the point is FileSystemConsistent", "ended with status 7")
      let point = try result.json()
      #expect(point["consistency"].text == "FileSystemConsistent")
      #expect(point["hooks"].list.contains { $0["failure"].text == "ended with status 7" })
      #expect(!point["frozen"].list.isEmpty)
    }
  }

  @Test("A hook that does not end is killed with its children, and the rest is thawed")
  func timeout() throws {
    let rig = try Rig(seed: 223)
    let system = try rig.fileSystem("ext4")
    let slow = try hook(rig, "slow", "sleep 600 & echo $! > \(rig.file("child")); wait")
    let good = try hook(rig, "good")
    try rig.strobe(
      "snapshot", "web", "--disk", "os=\(system.device)", "--pre-freeze", slow, "--post-thaw", good,
      "--hook-timeout", "1s"
    ).expect(1, says: "the pre-freeze hook \(slow) did not end within 1 s and was killed")
    #expect(log(rig) == ["pre-freeze", "post-thaw"])
    let child = try #require(readText(rig.file("child")))
    try waitUntil("killed") {
      let state = readText("/proc/\(child)/stat")
      return state == nil || state!.contains(") Z ")
    }
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test("post-thaw runs when the cut fails, and when the snapshot is killed")
  func failedCut() throws {
    let rig = try Rig(seed: 224)
    let system = try rig.fileSystem("ext4")
    let good = try hook(rig, "good")
    let words = [
      "snapshot", "web", "--disk", "os=\(system.device)", "--pre-freeze", good, "--post-thaw", good,
    ]
    try Shell.run("fsfreeze", "--freeze", system.mountPoint)
    defer { thaw(system.mountPoint) }
    try rig.strobe.run(words + ["--freeze", system.mountPoint]).expect(1, says: "frozen already")
    #expect(log(rig) == ["pre-freeze", "post-thaw"])
    thaw(system.mountPoint)
    let waits = try hook(rig, "waits", "sleep 600")
    let process = try rig.strobe.start(
      words.dropLast(3) + [waits, "--post-thaw", good], output: rig.file("output"))
    try waitUntil("in the hook") { log(rig).count == 3 }
    process.signal(SIGKILL)
    process.wait()
    try waitUntil("post-thaw by the guardian") { log(rig).count == 4 }
    #expect(log(rig)[3] == "post-thaw")
    let stopped = try rig.strobe.start(
      words.dropLast(3) + [waits, "--post-thaw", good], output: rig.file("output"))
    try waitUntil("in the hook") { log(rig).count == 5 }
    stopped.signal(SIGTERM)
    #expect(stopped.wait() == 128 + SIGTERM)
    #expect(log(rig).last == "post-thaw" && log(rig).count == 6)
    #expect(try !isFrozen(system.mountPoint))
  }

  @Test("A hook that others than root could have written is refused before anything happens")
  func untrusted() throws {
    let rig = try Rig(seed: 225)
    let system = try rig.fileSystem("ext4")
    let good = try hook(rig, "good")
    let words = ["snapshot", "web", "--disk", "os=\(system.device)", "--pre-freeze", good]
    let bad = try hook(rig, "bad")
    try Shell.run("chown", "65534", bad)
    try rig.strobe.run(words + ["--post-thaw", bad]).expect(1, says: bad, "belongs to user 65534")
    try Shell.run("chown", "0", bad)
    try Shell.run("chmod", "777", bad)
    try rig.strobe.run(words + ["--post-thaw", bad]).expect(1, says: bad, "written to by others")
    try Shell.run("chmod", "644", bad)
    try rig.strobe.run(words + ["--post-thaw", bad]).expect(2, says: bad, "not executable")
    try rig.strobe.run(words + ["--post-thaw", "bad"]).expect(2, says: "the path is not absolute")
    try rig.strobe.run(words + ["--post-thaw", rig.file("none")]).expect(1, says: "no such file")
    #expect(log(rig) == [])
    #expect(try rig.strobe("list", "--json").json()["collections"][0]["points"].list.isEmpty)
  }

  @Test("For a device that is not mounted the hook that stops its writer is the freeze")
  func unmounted() throws {
    let rig = try Rig(seed: 226)
    let (device, _) = try rig.device(16, random: 16)
    let gate = rig.file("gate")
    let bytes = rig.shop.bytes(4096)
    let idle = rig.file("idle")
    let writer = Busy { round in
      if (try? FileFacts(path: gate)) ?? nil != nil {
        try writeBytes([1], to: idle)
        usleep(1000)
      } else {
        try writeBytes(bytes, to: device, at: round % 4096 * 4096)
      }
    }
    defer { writer.end() }
    let running = try rig.strobe("snapshot", "web", "--disk", "os=\(device)", "--json")
    #expect([0, 3].contains(running.status))
    if running.status == 3 { #expect(try running.json()["consistency"].text == "Inconsistent") }
    let stop = try hook(
      rig, "stop", "rm -f \(idle); touch \(gate); while [ ! -e \(idle) ]; do sleep 0.01; done")
    let go = try hook(rig, "go", "rm \(gate)")
    for _ in 0..<2 {
      let point = try rig.strobe(
        "snapshot", "web", "--pre-freeze", stop, "--post-thaw", go, "--json"
      ).expect(0).json()
      #expect(point["consistency"].text == "ApplicationConsistent")
      #expect(point["disks"][0]["cut"].text == "preCopy")
      #expect(point["frozen"].list.isEmpty)
    }
    // A hook that doesn't stop the writer is found out.
    let sham = try hook(rig, "sham")
    let result = try rig.strobe("snapshot", "web", "--pre-freeze", sham, "--json")
    #expect(try result.status == 0 || result.json()["consistency"].text == "Inconsistent")
    writer.end()
    let quiet = try rig.strobe("snapshot", "web", "--json").expect(0).json()
    #expect(quiet["consistency"].text == "CrashConsistent")
    try rig.strobe("restore", "web@latest", "--disk", "os=\(rig.file("copy"))", "-q").expect(0)
    expectSame(rig.file("copy"), device)
  }

  @Test("A hook that floods its output with garbage is cut, and the point is readable")
  func flood() throws {
    let rig = try Rig(seed: 228)
    let (device, _) = try rig.device(8, random: 1)
    let loud = try hook(rig, "loud", "head -c 3000000 /dev/urandom; printf '\\033[31m'")
    let point = try rig.strobe(
      "snapshot", "web", "--disk", "os=\(device)", "--pre-freeze", loud, "--json"
    ).expect(0).json()
    #expect(point["consistency"].text == "ApplicationConsistent")
    let output = try #require(point["hooks"][0]["output"].text)
    #expect(!output.isEmpty && output.unicodeScalars.count <= 64 << 10)
    let shown = try rig.strobe("show", "web@latest").expect(0)
    #expect(!shown.output.contains("\u{1B}"))
    #expect(try rig.strobe("show", "web@latest", "--json").json()["hooks"].list.count == 1)
  }

  @Test("Hooks don't make up for a mounted file system that nobody froze", arguments: [0, 1])
  func hooksWithoutFreeze(member: Int) throws {
    let rig = try Rig(seed: 227)
    let devices = try (0..<2).map { _ in try rig.device(128).path }
    try Rig.make("btrfs", on: devices[0], devices[1])
    _ = try rig.mount(devices[0])
    let good = try hook(rig, "good")
    let result = try rig.strobe(
      "snapshot", "web", "--disk", "os=\(devices[member])", "--freeze", "none", "--pre-freeze",
      good,
      "--json")
    result.expect(3, says: "the point is CrashConsistent")
    #expect(try result.json()["consistency"].text == "CrashConsistent")
  }

  @Test(
    "Numbers of hooks that make no sense are wrong usage",
    arguments: [
      ["--hook-timeout", "0"], ["--hook-timeout", "31m"], ["--hook-retries", "-1"],
      ["--hook-retries", "1001"], ["--hook-failure", "maybe"],
    ])
  func badNumbers(words: [String]) throws {
    let shop = try Workshop()
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.strobe.run(
      ["snapshot", "web", "--disk", "os=\(disk)"] + [words.joined(separator: "=")]
    )
    .expect(2, says: String(words[0].dropFirst(2)))
  }
}
