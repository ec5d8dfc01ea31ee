import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

/// How a guest's disk is attached.
enum DiskShape: String, CaseIterable, CustomTestStringConvertible {
  /// A raw node over the file.
  case raw
  /// A raw node with options that QEMU would forget.
  case tuned
  /// A raw node over the raw node.
  case filteredRaw
  /// A raw node over a qcow2 image.
  case filteredImage
  /// A qcow2 image.
  case image
  /// `-drive`: all nodes have names that QEMU made up.
  case drive

  var testDescription: String { rawValue }
  var isImage: Bool { self == .image || self == .filteredImage }

  /// Options of `-blockdev`, the last one for the node `name`.
  func nodes(_ name: String, _ file: String) -> [String] {
    let storage = "file.driver=file,file.filename=\(file)"
    return switch self {
    case .raw: ["driver=raw,node-name=\(name),\(storage)"]
    case .tuned:
      [
        "driver=raw,node-name=\(name),discard=unmap,detect-zeroes=unmap,cache.no-flush=on,\(storage)"
      ]
    case .filteredRaw:
      [
        "driver=raw,node-name=\(name)-below,\(storage)",
        "driver=raw,node-name=\(name),file=\(name)-below",
      ]
    case .filteredImage:
      [
        "driver=qcow2,node-name=\(name)-below,\(storage)",
        "driver=raw,node-name=\(name),file=\(name)-below",
      ]
    case .image: ["driver=qcow2,node-name=\(name),\(storage)"]
    case .drive: []
    }
  }
}

/// What serves the disks.
enum GuestKind: String, CaseIterable, CustomTestStringConvertible {
  /// qemu-system-x86_64 without an operating system: its firmware idles.
  case machine
  /// qemu-storage-daemon, with the disks mounted through FUSE.
  case daemon

  var testDescription: String { rawValue }
}

/// A QEMU with disks that a test can write to as a guest does, and what they must hold.
final class TestGuest {
  static let isPossible =
    Machine.isRoot
    && Machine.has(
      "qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "nbdcopy", "nbdinfo", "nbdsh",
      "fusermount3")
    && (try? FileFacts(path: "/dev/fuse")) != nil
  static let comment: Comment = "needs root, QEMU, libnbd's programs and FUSE"

  let kind: GuestKind
  let shapes: [DiskShape]
  let size: Int
  let folder = TemporaryDirectory(in: "/dev/shm")
  /// Of the passes: tests run side by side in one process, which has one pass of a collection at a time.
  let collection = hexadecimal(randomBytes(12))
  private var bytes: [[UInt8]]
  private let extra: [String]
  private var process: RunningProcess?
  /// The second monitor: that of the administrator.
  private(set) var administrator: QMPConnection?

  init(_ kind: GuestKind, _ shapes: [DiskShape], size: Int = 4 << 20, extra: [String] = []) throws {
    self.kind = kind
    self.shapes = shapes
    self.size = size
    self.extra = extra
    bytes = shapes.map { _ in [UInt8](repeating: 0, count: size) }
    for (index, shape) in shapes.enumerated() {
      let file = folder.file("disk\(index)")
      try Shell.run(
        "qemu-img", "create", "-q", "-f", shape.isImage ? "qcow2" : "raw", file, "\(size)")
      if kind == .daemon { try writeBytes([], to: folder.file("guest\(index)")) }
    }
    try start()
  }

  deinit { kill() }

  /// What each disk must hold.
  var content: [Content] { bytes.map { Content($0) } }
  var socket: String { folder.file("qmp") }
  func name(_ index: Int) -> String { "vd\(index)" }
  var names: [String] { shapes.indices.map { name($0) } }

  /// - Parameter trustsViews: for what writes no zeros and reads with structured replies, or by blocks.
  func machine(trustsViews: Bool = false) throws -> QEMUMachine {
    try QEMUMachine(socket: socket, milliseconds: 60_000, trustsViews: trustsViews)
  }

  func start() throws {
    let words = kind == .machine ? machineWords : daemonWords
    process = try RunningProcess(words, output: folder.file("log"))
    for _ in 0..<12_000 {
      if let connection = try? QMPConnection(connecting: folder.file("qmp2"), milliseconds: 60_000)
      {
        administrator = connection
        return
      }
      usleep(10_000)
    }
    throw Shell.Failure(
      description: "QEMU doesn't start: \(readText(folder.file("log.err")) ?? "")")
  }

  private var machineWords: [String] {
    var words = [
      "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "64", "-display", "none",
      "-nodefaults", "-no-user-config", "-name", "test guest",
    ]
    for name in ["qmp", "qmp2", "qmp3"] {
      words += ["-qmp", "unix:\(folder.file(name)),server=on,wait=off"]
    }
    for (index, shape) in shapes.enumerated() {
      let file = folder.file("disk\(index)")
      for node in shape.nodes("node\(index)", file) { words += ["-blockdev", node] }
      if shape == .drive { words += ["-drive", "file=\(file),format=raw,if=none,id=node\(index)"] }
      words += ["-device", "virtio-blk-pci,drive=node\(index),id=\(name(index))"]
    }
    return words + extra
  }

  private var daemonWords: [String] {
    var words = ["qemu-storage-daemon"]
    for name in ["qmp", "qmp2", "qmp3"] {
      words += ["--chardev", "socket,id=\(name),path=\(folder.file(name)),server=on,wait=off"]
      words += ["--monitor", "chardev=\(name)"]
    }
    for (index, shape) in shapes.enumerated() {
      for node in shape.nodes(name(index), folder.file("disk\(index)")) {
        words += ["--blockdev", node]
      }
      let place = folder.file("guest\(index)")
      words += [
        "--export",
        "type=fuse,id=guest\(index),node-name=\(name(index)),mountpoint=\(place),writable=on",
      ]
    }
    return words + extra
  }

  /// Writes one block of a byte as the guest does.
  func write(_ byte: UInt8, to index: Int, at offset: Int, count: Int = 64 << 10) throws {
    if kind == .daemon {
      try writeBytes(
        [UInt8](repeating: byte, count: count), to: folder.file("guest\(index)"), at: offset)
    } else {
      try io("write -P \(byte) \(offset) \(count)", index)
      try io("flush", index)
    }
    bytes[index].replaceSubrange(offset..<offset + count, with: repeatElement(byte, count: count))
  }

  /// What the disk holds for a guest now.
  func holds(_ index: Int, _ byte: UInt8, at offset: Int) throws -> Bool {
    if kind == .daemon {
      return try readBytes(folder.file("guest\(index)"), at: offset, count: 1) == [byte]
    }
    let format = shapes[index].isImage ? "qcow2" : "raw"
    let words = ["qemu-io", "-U", "-r", "-f", format, "-c", "read -P \(byte) \(offset) 512"]
    return try Shell.capture(words + [folder.file("disk\(index)")]).status == 0
  }

  /// A command of qemu-io through the disk's device, as if the guest had asked for it.
  private func io(_ command: String, _ index: Int) throws {
    let device = "/machine/peripheral/\(name(index))/virtio-backend"
    let answer = try #require(administrator).execute(
      "human-monitor-command",
      ["command-line": .string("qemu-io -d \(device) \"\(command)\"")])
    guard answer.text == "" else {
      throw Shell.Failure(description: "\(command): \(answer.line)")
    }
  }

  func pause() throws {
    if kind == .machine { try #require(administrator).execute("stop") }
  }

  func letGoOn() throws {
    if kind == .machine { try #require(administrator).execute("cont") }
  }

  /// Ends QEMU in order, and starts it again.
  func restart() throws {
    _ = try #require(administrator).execute("quit")
    process?.wait()
    clean()
    try start()
  }

  func crash() throws {
    kill()
    try start()
  }

  func kill() {
    process?.signal(SIGKILL)
    process?.wait()
    process = nil
    clean()
  }

  private func clean() {
    administrator = nil
    for index in shapes.indices where kind == .daemon {
      unsafe umount2(folder.file("guest\(index)"), Int32(MNT_DETACH))
    }
    for name in ["qmp", "qmp2", "qmp3"] { unsafe unlink(folder.file(name)) }
  }
}
