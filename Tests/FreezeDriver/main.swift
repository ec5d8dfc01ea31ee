import Glibc
import Platform
import Quiescing
import VirtualMachines

// freeze-driver GUARDIAN RECORDS MILLISECONDS HOOK WAY DEVICE...
//
// Freezes the file systems on the devices like a pass, and waits to be killed. Instead of devices there may be guests:
// `agent=SOCKET`, `monitor=SOCKET`.
//
// HOOK: the post-thaw hook, or `-`. WAY: `hold` stays frozen for ever; `repeat` freezes and thaws for ever;
// `unsynchronized` freezes without writing out first;
// `midline` holds and leaves a half command at the monitors; `prefreeze` runs HOOK with PHASE=pre-freeze first, and that is where it is to be killed.
// Says on standard output what it has reached: `ready <guardian's id>`, `frozen`.

let words = CommandLine.arguments

func say(_ text: String) {
  let line = Array((text + "\n").utf8)
  _ = unsafe line.withUnsafeBytes { unsafe write(STDOUT_FILENO, $0.baseAddress, $0.count) }
}

func driveOnce(_ way: String) throws(StrobeError) {
  var options = FreezeOptions()
  options.guardianExecutable = words[1]
  options.recordFolder = words[2]
  options.maxFreezeMilliseconds = Int(words[3]) ?? 1000
  let hook =
    words[4] == "-"
    ? nil
    : HookCommand(program: words[4], environment: ["PHASE": "post-thaw"], limitMilliseconds: 60_000)
  var disks: [DiskReference] = []
  var guests: [GuestHold] = []
  var monitors: [LineSocket] = []
  for word in words[6...] {
    if word.hasPrefix("agent=") {
      guests.append(.agent(socketPath: String(word.dropFirst(6)), timeoutMilliseconds: 5000))
    } else if word.hasPrefix("monitor=") {
      let monitor = try connected(String(word.dropFirst(8)))
      guests.append(
        .processors(monitorDescriptor: monitor.number, socketPath: monitor.path))
      monitors.append(monitor)
    } else if let facts = try FileFacts(path: word) {
      disks.append(DiskReference(facts))
    }
  }
  let session = try FreezeSession(
    try FileSystemsOnDisks.find(on: disks), guests: guests, postThaw: hook, options)
  say("ready \(session.guardianProcess)")
  if hook != nil { session.hooksStarted() }
  if way == "prefreeze" {
    let before = HookCommand(
      program: words[4], environment: ["PHASE": "pre-freeze"], limitMilliseconds: 600_000)
    _ = try HookRunner(before, onProcess: session.hookProcess).run(stop: CancellationFlag())
  }
  if way != "unsynchronized" { try session.synchronize() }
  _ = try session.freeze()
  if way == "midline" { for monitor in monitors { try monitor.send(half, milliseconds: 1000) } }
  say("frozen")
  if way == "hold" || way == "midline" { while true { pause() } }
  _ = try session.thaw()
  session.hooksFinished()
  withExtendedLifetime(monitors) {}
}

/// The beginning of a command.
let half = Array("{\"execute\": \"transaction\", \"arguments\": {\"actions\": [\"".utf8)

/// Connects to a monitor, as far as capabilities.
func connected(_ path: String) throws(StrobeError) -> LineSocket {
  let monitor = try LineSocket(connecting: path, milliseconds: 5000)
  let deadline = monotonicMilliseconds() + 5000
  guard try monitor.line(until: deadline) != nil else {
    throw .system(ETIMEDOUT, call: "read", object: path)
  }
  try monitor.send(Array("{\"execute\": \"qmp_capabilities\"}\n".utf8), milliseconds: 5000)
  _ = try monitor.line(until: deadline)
  return monitor
}

do {
  repeat { try driveOnce(words[5]) } while words[5] == "repeat"
} catch {
  say("failed \(error)")
  exit(1)
}
