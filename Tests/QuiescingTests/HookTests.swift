import Glibc
import Platform
import Quiescing
import TestSupport
import Testing

@Suite("Hooks", .enabled(if: Machine.isRoot, "needs root"))
struct HookTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  private func script(_ text: String, name: String = "hook", head: String = "#!/bin/bash") throws
    -> String
  {
    let path = folder.file(name)
    try writeBytes(Array("\(head)\n\(text)\n".utf8), to: path)
    try Shell.run("chmod", "755", path)
    return path
  }

  private func run(
    _ program: String, limit: Int = 60_000, retries: Int = 0,
    environment: [String: String] = [:], stop: CancellationFlag = CancellationFlag()
  ) throws -> HookResult {
    let hook = HookCommand(
      program: program, environment: environment, limitMilliseconds: limit, retries: retries)
    return try HookRunner(hook).run(stop: stop)
  }

  @Test("A hook gets its environment, no input, and a process group of its own")
  func environment() throws {
    let hook = try script(
      "echo $A; env | sort; cat; echo error >&2; echo group $(ps -o pgid= -p $$) $$; ls /proc/self/fd | wc -l"
    )
    let leak = try FileDescriptor(opening: "/dev/null", O_RDONLY)
    _ = fcntl(leak.number, F_SETFD, 0)
    let result = try run(hook, environment: ["A": "b c", "PATH": "/evil"])
    #expect(result.isSuccess && result.attempts == 1)
    let lines = result.output.split(separator: "\n").map(String.init)
    #expect(lines.first == "b c" && lines.contains("error"))
    #expect(lines.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin"))
    #expect(!result.output.contains("HOME="))
    let group = lines.first { $0.hasPrefix("group") }?.split(separator: " ").dropFirst()
    #expect(group.map { Set($0).count } == 1)
    // 0, 1, 2 and the listing's own.
    #expect(lines.last?.filter { $0 != " " } == "4", "\(result.output)")
  }

  @Test("A hook that fails is tried again, as often as allowed")
  func retries() throws {
    let count = folder.file("count")
    let hook = try script("echo x >> \(count); exit 7")
    let failed = try run(hook, retries: 2)
    #expect(failed.ending == .exited(7) && failed.attempts == 3 && !failed.isSuccess)
    let luck = try script("echo x >> \(count); [ $(wc -l < \(count)) -ge 5 ]")
    let lucky = try run(luck, retries: 9)
    #expect(lucky.isSuccess && lucky.attempts == 2)
    #expect(try run(try script("kill -9 $$")).ending == .killed(signal: SIGKILL))
  }

  @Test(
    "A hook that hangs is ended with everything in its process group", arguments: [true, false])
  func hangs(obeys: Bool) throws {
    let hook = try script(
      (obeys ? "" : "trap '' TERM; ") + "sleep 600 & echo $!; sleep 600; sleep 600")
    let result = try run(hook, limit: 300, retries: 5)
    #expect(result.ending == .timedOut && result.attempts == 1)
    let child = try #require(result.output.split(separator: "\n").first.flatMap { Int32($0) })
    try waitUntil("the child is gone") { !isAlive(child) }
  }

  @Test("The limit is for all attempts together")
  func limit() throws {
    let result = try run(try script("sleep 0.2; exit 1"), limit: 1000, retries: 1_000_000)
    #expect(result.ending == .timedOut || result.ending == .exited(1))
    #expect(result.attempts < 10)
  }

  @Test("A hook is ended when the caller stops")
  func stopped() throws {
    let stop = CancellationFlag()
    let started = folder.file("started")
    let hook = try script("touch \(started); sleep 600")
    let join = try #require(
      inBackground {
        try? waitUntil("started") { (try FileFacts(path: started)) != nil }
        stop.cancel()
      })
    #expect(try run(hook, stop: stop).ending == .stopped)
    join()
  }

  @Test("A flood of output neither blocks nor is kept")
  func flood() throws {
    let result = try run(
      try script("echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; exit 3"))
    #expect(result.ending == .exited(3))
    #expect(result.output.utf8.count == 64 << 10 && result.output.hasPrefix("first\n"))
    let endless = try run(try script("exec yes"), limit: 300)
    #expect(endless.ending == .timedOut)
  }

  @Test("A daemon that a hook leaves behind lives, and nobody waits for it")
  func daemon() throws {
    let result = try run(try script("sleep 600 & echo $!"))
    #expect(result.isSuccess && result.milliseconds < 300_000)
    let child = try #require(result.output.split(separator: "\n").first.flatMap { Int32($0) })
    #expect(isAlive(child))
    kill(child, SIGKILL)
  }

  @Test("A hook that removes itself has run; there is no second attempt")
  func removesItself() throws {
    #expect(try run(try script("rm $0")).isSuccess)
    let error = try #require(throws: StrobeError.self) {
      try run(try script("rm $0; exit 1"), retries: 1)
    }
    #expect(error.reason == .notFound)
  }

  @Test("What can't be executed is an error")
  func broken() throws {
    let hook = try script("", head: "#!/nonexistent/interpreter")
    let error = try #require(throws: StrobeError.self) { try run(hook) }
    #expect(error.errno == ENOENT && error.message.contains(hook))
  }

  private func refusal(_ path: String) throws -> StrobeError {
    try #require(throws: StrobeError.self) {
      try HookCommand(program: path, environment: [:]).check()
    }
  }

  @Test("Only what root alone can change is run")
  func owners() throws {
    let hook = try script("exit 0")
    #expect(try run(hook).isSuccess)
    #expect(try refusal("hook").reason == .usage)
    #expect(try refusal(folder.path).reason == .usage)
    #expect(try refusal(folder.file("missing")).reason == .notFound)
    for (change, back) in [
      (["chmod", "o+w"], ["chmod", "o-w"]), (["chmod", "g+w"], ["chmod", "g-w"]),
      (["chown", "65534"], ["chown", "0"]),
    ] {
      for path in [hook, folder.path] {
        _ = try Shell.capture(change + [path])
        let error = try refusal(hook)
        #expect(error.reason == .refused && error.message.hasPrefix(path), "\(error)")
        _ = try Shell.capture(back + [path])
      }
    }
    try Shell.run("chmod", "-x", hook)
    #expect(try refusal(hook).reason == .usage)
    try Shell.run("chmod", "+x", hook)
    #expect(try run(hook).isSuccess)
  }

  @Test("A symbolic link anywhere in the path is refused, and the real path named")
  func links() throws {
    let hook = try script("exit 0")
    try Shell.run("mkdir", folder.file("safe"), folder.file("open"))
    try Shell.run("chmod", "777", folder.file("open"))
    try Shell.run("ln", "-s", hook, folder.file("safe/link"))
    try Shell.run("ln", "-s", hook, folder.file("open/link"))
    try Shell.run("ln", "-s", folder.path, folder.file("safe/folder"))
    for path in ["safe/link", "open/link", "safe/folder/" + lastComponent(hook)] {
      let error = try refusal(folder.file(path))
      #expect(error.reason == .refused && error.advice?.contains(hook) == true)
    }
  }
}
