import BlockDevices
import Platform
import TestSupport
import Testing

@Suite("The mount table")
struct MountTableTests {
  private func mount(_ line: String) throws -> Mount {
    let mounts = MountTable.parse(line + "\n")
    try #require(mounts.count == 1)
    return mounts[0]
  }

  @Test(
    "A line is read by its fields, whatever number of optional ones there are",
    arguments: ["", "shared:1 ", "shared:1 master:2 propagate_from:7 unbindable "])
  func fields(optional: String) throws {
    let found = try mount(
      "36 35 98:12 /root /mnt rw,noatime \(optional)- ext3 /dev/sda rw,errors=continue")
    #expect(found.device == DeviceNumber(major: 98, minor: 12))
    #expect(found.mountPoint == "/mnt" && found.fileSystem == "ext3")
    #expect(found.source == "/dev/sda" && found.isWritable)
  }

  @Test(
    "Octal escapes stand for bytes",
    arguments: [
      ("/a\\040b", "/a b"), ("/a\\011b", "/a\tb"), ("/a\\012b", "/a\nb"), ("/a\\134b", "/a\\b"),
      ("/\\134040", "/\\040"), ("/a\\043b", "/a#b"), ("/\\303\\274", "/ü"), ("/ü", "/ü"),
      ("/a\\04", "/a\\04"), ("/a\\", "/a\\"), ("/a\\999", "/a\\999"), ("/\\040\\040", "/  "),
    ])
  func escapes(field: String, expected: String) throws {
    #expect(try mount("1 2 8:1 / \(field) rw - ext4 /dev/x rw").mountPoint == expected)
    #expect(try mount("1 2 8:1 / /m rw - ext4 \(field) rw").source == expected)
  }

  @Test(
    "Whether a file system takes writes is what its own options say, not this mount's",
    arguments: [
      ("rw", "rw", true), ("ro", "rw", true), ("rw", "ro", false), ("ro", "ro,norw", false),
    ])
  func writable(options: String, superOptions: String, expected: Bool) throws {
    #expect(
      try mount("1 2 8:1 / /m \(options) - ext4 /dev/x \(superOptions)").isWritable == expected)
  }

  @Test("An empty source and a mount point named like the separator are understood")
  func odd() throws {
    let empty = try mount("1 2 0:5 / /m rw - tmpfs  rw")
    #expect(empty.source == "" && empty.fileSystem == "tmpfs" && empty.isWritable)
    let dash = try mount("1 2 0:5 - - rw - tmpfs - rw")
    #expect(dash.mountPoint == "-" && dash.source == "-")
  }

  @Test(
    "Letters that Unicode would join with their neighbours hide no mount",
    arguments: ["/ends\u{600}", "/m\u{301}", "/\u{301}", "/a\u{200D}", "/a\r", "/\u{1F1E9}"])
  func joiners(name: String) throws {
    let lines = """
      1 2 8:1 / \(name) rw - ext4 \(name) rw,upper=\(name)
      1 2 8:2 / /other rw - ext4 /dev/y rw

      """
    let mounts = MountTable.parse(lines)
    try #require(mounts.count == 2)
    #expect(Array(mounts[0].mountPoint.utf8) == Array(name.utf8))
    #expect(Array(mounts[0].source.utf8) == Array(name.utf8))
    #expect(mounts[1].mountPoint == "/other")
  }

  @Test(
    "A line that is none is left out, the others stay",
    arguments: [
      "", "nonsense", "1 2 x:1 / /m rw - ext4 /dev/x rw", "1 2 8:1 / /m rw ext4 /dev/x rw a b",
    ])
  func nonsense(line: String) {
    let mounts = MountTable.parse("\(line)\n1 2 8:1 / /m rw - ext4 /dev/x rw\n")
    #expect(mounts.map(\.mountPoint) == ["/m"])
  }

  @Test("This machine's table has a root")
  func real() throws {
    #expect(try MountTable.read().contains { $0.mountPoint == "/" })
  }

  @Test(
    "A mount point with a blank and a backslash is found under its name",
    .enabled(if: Machine.isRoot, "needs root"))
  func realEscapes() throws {
    let folder = TemporaryDirectory()
    let mount = try StrangeMount(folder.file("a b\\c\td"))
    #expect(
      try MountTable.read().contains { $0.mountPoint == mount.path && $0.fileSystem == "tmpfs" })
  }
}

/// A tmpfs at a mount point of any name.
private final class StrangeMount: Sendable {
  let path: String

  init(_ path: String) throws {
    self.path = path
    try makeDirectories(path)
    try Shell.run("mount", "-t", "tmpfs", "none", path)
  }

  deinit { unmount(path) }
}
