import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import VirtualMachines

/// Two at a time, these and the next: each has a libvirtd of its own and a guest that computes all the time.
@Suite(
  "Guests of libvirt", .serialized, .enabled(if: LibvirtRig.isPossible, "\(LibvirtRig.needs)"))
enum LibvirtTests {}

@Suite(
  "Guests of libvirt, and crashes", .serialized,
  .enabled(if: LibvirtRig.isPossible, "\(LibvirtRig.needs)"))
enum LibvirtCrashes {}

/// A session libvirtd of user nobody, which leaves `/etc` and `/var` alone, and its guests: all ended with it.
///
/// The guests have no system: they find nothing to boot, or a boot sector that writes. The tests write to their
/// disks through QEMU, as the guest would.
final class LibvirtRig {
  static let needs = "needs root, libvirtd, virsh, QEMU and libnbd's programs"
  static let isPossible =
    Machine.isRoot
    && [
      "libvirtd", "virsh", "setpriv", "qemu-system-x86_64", "qemu-img", "nbdinfo", "nbdcopy",
    ].allSatisfy(Shell.exists)

  let folder = TemporaryDirectory(in: "/dev/shm")
  private var daemon: RunningProcess?
  private var guests: [String] = []

  var uri: String { "qemu+unix:///session?socket=\(folder.path)/run/libvirt/libvirt-sock" }
  /// Where QEMU may make files.
  var scratch: String { folder.file("scratch") }

  /// - Parameter isProbed: whether libvirtd knows all QEMUs of the machine from the start.
  init(isProbed: Bool = true) throws {
    for name in ["run", "cfg", "cache", "img", "scratch", "cfg/libvirt"] {
      try makeDirectories(folder.file(name), mode: 0o755)
    }
    // Otherwise virtlogd is started, which outlives the test.
    try writeBytes(
      Array("stdio_handler = \"file\"\n".utf8), to: folder.file("cfg/libvirt/qemu.conf"))
    try Shell.run("chmod", "755", folder.path)
    try Self.probed.withLock { probed in
      try fill(isProbed ? probed : [:])
      try startDaemon()
      guard isProbed && probed.isEmpty else { return }
      try virsh("version")
      probed = try whatWasProbed()
    }
  }

  /// What libvirtd found out about QEMU: it takes it four seconds.
  private static let probed = Mutex<[String: [UInt8]]>([:])
  private var probes: String { folder.file("cache/libvirt/qemu/cache/capabilities") }

  private func fill(_ probed: [String: [UInt8]]) throws {
    try makeDirectories(probes, mode: 0o755)
    for (name, bytes) in probed { try writeBytes(bytes, to: "\(probes)/\(name)") }
    try giveToNobody()
  }

  func whatWasProbed() throws -> [String: [UInt8]] {
    try namesInDirectory(probes).reduce(into: [:]) { $0[$1] = try readFile("\(probes)/\($1)") }
  }

  deinit {
    for guest in guests {
      let process = process(of: guest)
      _ = try? virsh("destroy", guest)
      if let process { kill(process, SIGKILL) }
    }
    daemon?.signal(SIGTERM)
    daemon?.wait()
  }

  private func giveToNobody() throws { try Shell.run("chown", "-R", "nobody:nogroup", folder.path) }

  func startDaemon() throws {
    let path = folder.path
    daemon = try RunningProcess(
      [
        "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "libvirtd", "-p",
        "\(path)/run/libvirtd.pid", "--timeout", "0",
      ],
      environment: [
        "HOME": path, "XDG_RUNTIME_DIR": "\(path)/run", "XDG_CONFIG_HOME": "\(path)/cfg",
        "XDG_CACHE_HOME": "\(path)/cache",
      ], output: folder.file("daemon"))
    try waitUntil("libvirtd answers") { (try? self.virsh("list")) != nil }
  }

  func killDaemon() {
    daemon?.signal(SIGKILL)
    daemon?.wait()
  }

  @discardableResult
  func virsh(_ words: String...) throws -> String {
    let result = try Shell.capture(["virsh", "-q", "-c", uri] + words)
    guard result.status == 0 else {
      throw Shell.Failure(description: "virsh \(words.joined(separator: " ")): \(result.errors)")
    }
    return result.output
  }

  func waitUntil(_ what: String, _ condition: () -> Bool) throws {
    for _ in 0..<2400 {
      if condition() { return }
      usleep(50_000)
    }
    throw Shell.Failure(description: "waited in vain until \(what)")
  }

  /// The process id of a guest's QEMU.
  func process(of guest: String) -> Int32? {
    readText(folder.file("run/libvirt/qemu/run/\(guest).pid")).flatMap { Int32($0) }
  }

  /// Ends a guest's QEMU as a crash would.
  func crash(_ guest: String) throws {
    guard let process = process(of: guest) else { throw Shell.Failure(description: "no process") }
    kill(process, SIGKILL)
    try waitUntil("libvirt notices") {
      (try? self.virsh("domstate", guest))?.contains("shut off") == true
    }
  }

  /// Makes an image; MiB.
  func makeImage(_ name: String, size: String, format: String = "qcow2") throws -> String {
    let path = folder.file("img/\(name)")
    try Shell.run("qemu-img", "create", "-q", "-f", format, path, size)
    try giveToNobody()
    return path
  }

  /// Defines a guest and starts it.
  ///
  /// - Parameters:
  ///   - disks: XML of them.
  ///   - more: XML for the domain itself.
  func define(_ name: String, disks: String, more: String = "", start: Bool = true) throws {
    let document = """
      <domain type='qemu'>
       <name>\(name)</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\(more)
       <os><type arch='x86_64' machine='q35'>hvm</type></os>
       <devices>
        <emulator>/usr/bin/qemu-system-x86_64</emulator>
        \(disks)
        <controller type='usb' model='none'/><memballoon model='none'/>
       </devices>
      </domain>
      """
    try writeBytes(Array(document.utf8), to: folder.file("\(name).xml"))
    try virsh("define", folder.file("\(name).xml"))
    guests.append(name)
    if start { try virsh("start", name) }
  }

  static func disk(_ path: String, _ target: String, format: String = "qcow2", driver: String = "")
    -> String
  {
    """
    <disk type='file' device='disk'><driver name='qemu' type='\(format)' \(driver)/>
     <source file='\(path)'/><target dev='\(target)' bus='virtio'/></disk>
    """
  }

  /// Names of the dirty bitmaps that the guest's disks have.
  func bitmaps(_ guest: String) throws -> [String] {
    let answer = try virsh(
      "qemu-monitor-command", guest,
      "{\"execute\":\"query-named-block-nodes\",\"arguments\":{\"flat\":true}}")
    let nodes = JSONValue(decoding: answer.utf8)?["return"]?.elements ?? []
    return nodes.flatMap { $0["dirty-bitmaps"]?.elements ?? [] }.compactMap { $0["name"]?.text }
  }
}
