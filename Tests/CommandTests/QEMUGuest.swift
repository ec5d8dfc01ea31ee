import Glibc
import Platform
import TestSupport

/// A guest of QEMU without an operating system: its firmware looks for one for ever. Ended with the test.
final class QEMUGuest {
  static let isPossible = Machine.has("qemu-system-x86_64", "qemu-img", "qemu-io")

  /// For Strobe, and for the test.
  let monitor: String
  let own: String
  private let process: RunningProcess

  /// - Parameters:
  ///   - disks: the ids of the devices, and their images.
  ///   - folder: where it runs; relative names of images are looked for there.
  init(
    _ shop: Workshop, _ disks: [(id: String, format: String, image: String)],
    more: [String] = [], in folder: String? = nil
  ) throws {
    let name = hexadecimal(randomBytes(3))
    (monitor, own) = (shop.file("\(name).qmp"), shop.file("\(name).own"))
    var words = [
      "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults",
      "-display",
      "none", "-no-user-config", "-qmp", "unix:\(monitor),server=on,wait=off", "-qmp",
      "unix:\(own),server=on,wait=off",
    ]
    for disk in disks {
      words += [
        "-blockdev",
        "driver=\(disk.format),node-name=node-\(disk.id),file.driver=file,file.filename=\(disk.image)",
        "-device", "virtio-blk-pci,drive=node-\(disk.id),id=\(disk.id)",
      ]
    }
    words += more
    if let folder { words = ["sh", "-c", "cd \"$0\" && exec \"$@\"", folder] + words }
    process = try RunningProcess(words, environment: [:], output: shop.file("qemu-\(name)"))
    try process.waitUntilListening(at: monitor, own)
  }

  /// Writes as the guest would: through the node that its device has.
  func write(_ id: String, pattern: Int, at offset: Int, count: Int) throws {
    let command =
      "qemu-io -d /machine/peripheral/\(id)/virtio-backend \\\"write -P \(pattern) \(offset) \(count)\\\""
    try ask(
      #"{"execute":"human-monitor-command","arguments":{"command-line":"\#(command)"}}"#)
  }

  /// Sends one command over the test's own monitor and waits for the answer.
  @discardableResult
  func ask(_ command: String, mayFail: Bool = false) throws -> String {
    let script = """
      import json, socket, sys
      s = socket.socket(socket.AF_UNIX); s.settimeout(120); s.connect(sys.argv[1]); f = s.makefile("rw")
      f.readline()
      for line in ('{"execute":"qmp_capabilities"}', sys.argv[2]):
          f.write(line + "\\n"); f.flush()
          answer = json.loads(f.readline())
          while "event" in answer: answer = json.loads(f.readline())
      print(json.dumps(answer))
      if "error" in answer or "rror" in str(answer["return"])[:200]: sys.exit(1)
      """
    let result = try Shell.capture(["python3", "-c", script, own, command])
    guard mayFail || result.status == 0 else {
      throw Shell.Failure(description: "\(command): \(result.output)\(result.errors)")
    }
    return result.output
  }

  /// Ends it in good order, so that bitmaps are stored in their images.
  func quit() throws {
    try ask(#"{"execute":"quit"}"#)
    process.wait()
  }

  /// Makes it hang, or go on.
  func hang(_ hangs: Bool) { process.signal(hangs ? SIGSTOP : SIGCONT) }
  var processID: Int32 { process.id }

  func end() {
    process.signal(SIGKILL)
    process.wait()
  }

  deinit { end() }
}
