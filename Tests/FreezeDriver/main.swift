import Glibc
import Platform
import Quiescing

// freeze-driver GUARDIAN RECORDS MILLISECONDS HOOK WAY DEVICE...
//
// Freezes the file systems on the devices like a pass, and waits to be killed.
//
// HOOK: the post-thaw hook, or `-`. WAY: `hold` stays frozen for ever; `repeat` freezes and thaws for ever;
// `unsynchronized` freezes without writing out first;
// `prefreeze` runs HOOK with PHASE=pre-freeze first, and that is where it is to be killed.
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
  for path in words[6...] {
    if let facts = try FileFacts(path: path) { disks.append(DiskReference(facts)) }
  }
  let session = try FreezeSession(
    try FileSystemsOnDisks.find(on: disks), postThaw: hook, options)
  say("ready \(session.guardianProcess)")
  if hook != nil { session.hooksStarted() }
  if way == "prefreeze" {
    let before = HookCommand(
      program: words[4], environment: ["PHASE": "pre-freeze"], limitMilliseconds: 600_000)
    _ = try HookRunner(before, onProcess: session.hookProcess).run(stop: CancellationFlag())
  }
  if way != "unsynchronized" { try session.synchronize() }
  _ = try session.freeze()
  say("frozen")
  if way == "hold" { while true { pause() } }
  _ = try session.thaw()
  session.hooksFinished()
}

do {
  repeat { try driveOnce(words[5]) } while words[5] == "repeat"
} catch {
  say("failed \(error)")
  exit(1)
}
