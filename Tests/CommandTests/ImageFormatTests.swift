import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Image files by format",
  .enabled(if: Machine.has("qemu-nbd", "qemu-img"), "needs qemu-utils"))
struct ImageFormatTests {
  @Test(
    "The disk in an image is taken, and restored to an image of each format",
    arguments: ["qcow2", "vmdk", "vdi", "vhdx"])
  func roundTrip(format: String) throws {
    let shop = try Workshop(seed: 60)
    let raw = try shop.image("disk.raw", 12 << 20, random: 3 << 20)
    let image = shop.file("a,b.\(format)")
    try Shell.run("qemu-img", "convert", "-f", "raw", "-O", format, raw, image)
    let first = try shop.strobe("snapshot", "web", "--json", "--disk", "os=\(format):\(image)")
      .expect(0).json()
    #expect(first["consistency"].text == "CrashConsistent")
    let again = try shop.strobe("snapshot", "web", "--json").expect(0).json()
    #expect(again["disks"][0]["changedChunks"].number == 0)
    let back = shop.file("back.raw")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(back)").expect(0)
    expectSame(back, raw)
    try shop.strobe("restore", "web@latest", "--to", shop.file("to"), "--format", format).expect(0)
    let made = shop.file("to/os.\(format)")
    try Shell.run("qemu-img", "compare", "-f", "raw", "-F", format, raw, made)
    try Shell.run("qemu-img", "info", "-f", format, made)
    #expect(try namesInDirectory(shop.file("to")) == ["os.\(format)"])
    try shop.strobe("restore", "web@latest", "--disk", "os=\(format):\(made)")
      .expect(1, says: "exists already", "--overwrite")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(format):\(made)", "--overwrite")
      .expect(0)
    try Shell.run("qemu-img", "compare", "-f", "raw", "-F", format, raw, made)
  }

  @Test("A file that looks like an image but is named raw is asked back about")
  func ambiguous() throws {
    let shop = try Workshop(seed: 61)
    let image = shop.file("disk.qcow2")
    try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", image, "4M")
    try shop.strobe("snapshot", "web", "--disk", "os=\(image)")
      .expect(2, says: "looks like a qcow2 image", "qcow2:\(image)", "raw:\(image)")
    try Shell.run("truncate", "-s", "%512", image)
    let raw = try shop.strobe("snapshot", "raw", "--json", "--disk", "os=raw:\(image)").expect(0)
      .json()
    #expect(raw["disks"][0]["size"].number != 4 << 20)
    try shop.strobe("snapshot", "raw").expect(0)
    let disk = try shop.strobe(
      "snapshot", "web", "--json", "--format", "qcow2", "--disk", "os=\(image)"
    )
    .expect(0).json()
    #expect(disk["disks"][0]["size"].number == 4 << 20)
    try shop.strobe("snapshot", "web", "--format", "qcow3", "--disk", "os=\(image)")
      .expect(2, says: "qcow3")
  }

  @Test("A raw image whose guest wrote a header of another format is read as what it was named")
  func hostileHeader() throws {
    let shop = try Workshop(seed: 62)
    let secret = try shop.image("secret", 1 << 20)
    let raw = shop.file("disk.raw")
    try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", raw)
    try Shell.run("truncate", "-s", "2M", raw)
    try shop.strobe("snapshot", "web", "--disk", "os=raw:\(raw)").expect(0)
    let back = shop.file("back.raw")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(back)").expect(0)
    expectSame(back, raw)
  }

  @Test(
    "What an image lies over is followed where it is a file of a named format, and nowhere else")
  func backing() throws {
    let shop = try Workshop(seed: 65)
    let base = try shop.image("base.raw", 2 << 20)
    let over = shop.file("over.qcow2")
    try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", over)
    try shop.strobe("snapshot", "web", "--disk", "os=qcow2:\(over)").expect(0)
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(copy)").expect(0)
    expectSame(copy, base)
    let (one, other) = (shop.file("one.qcow2"), shop.file("other.qcow2"))
    try Shell.run(
      "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", other, "-F", "qcow2", one, "2M")
    try Shell.run(
      "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", one, "-F", "qcow2", other, "2M")
    try shop.strobe("snapshot", "ring", "--disk", "os=qcow2:\(one)").expect(
      2, says: "can't be opened")
    for (name, words) in [
      ("net", ["-b", "nbd://127.0.0.1:1/x", "-F", "raw"]),
      ("json", ["-b", "json:{\"driver\":\"null-co\",\"size\":2097152}", "-F", "raw"]),
      ("data", ["-o", "data_file=\(shop.file("data.bin"))"]),
    ] {
      let image = shop.file("\(name).qcow2")
      let made = try Shell.capture(
        ["qemu-img", "create", "-q"] + (name == "data" ? [] : ["-u"]) + ["-f", "qcow2"] + words
          + [image, "2M"])
      #expect(made.status == 0, "\(made.errors)")
      let result = try shop.strobe("snapshot", name, "--disk", "os=qcow2:\(image)")
      #expect(result.status == 1 || result.status == 2, "\(name): \(result.errors)")
    }
  }

  @Test(
    "An image that can't be made leaves nothing beside its name",
    .enabled(if: Machine.isRoot, "needs root: a small file system"))
  func unmakeable() throws {
    let shop = try Workshop(seed: 66)
    try shop.snapshot("--disk", "os=\(shop.image("disk.raw", 2 << 20))")
    let folder = shop.file("to")
    try makeDirectories(folder)
    try Shell.run("mount", "-t", "tmpfs", "-o", "size=64k", "strobe-test", folder)
    let full = try shop.strobe("restore", "web@latest", "--disk", "os=vhdx:\(folder)/os.vhdx")
    let left = try namesInDirectory(folder)
    try Shell.run("umount", folder)
    #expect(full.status == 1, "\(full.errors)")
    #expect(left == [])
  }

  @Test("An encrypted image is refused, with what can be done", arguments: ["aes", "luks"])
  func encrypted(with cipher: String) throws {
    let shop = try Workshop(seed: 88)
    let image = shop.file("secret.qcow2")
    // For LUKS, QEMU times its key derivation by the CPU clock, and gives up where that clock is too
    // coarse for a fast derivation: one creation in five here, more on a busy machine.
    var creation: Shell.Result
    var tries = 0
    repeat {
      creation = try Shell.capture([
        "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=word", "-o",
        "encrypt.format=\(cipher),encrypt.key-secret=key", image, "4M",
      ])
      tries += 1
    } while creation.errors.contains("Unable to get accurate CPU usage") && tries < 50
    try #require(creation.status == 0, "\(creation.errors)")
    try shop.strobe("snapshot", "web", "--disk", "os=qcow2:\(image)")
      .expect(1, says: "is encrypted", "qemu-nbd --object secret")
  }

  @Test("An image that a running guest holds is refused, with the way that works")
  func held() throws {
    let shop = try Workshop(seed: 63)
    let image = shop.file("disk.qcow2")
    try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", image, "4M")
    let guest = try NBDServer.qemu(shop, image, format: "qcow2")
    try shop.strobe("snapshot", "web", "--disk", "os=qcow2:\(image)")
      .expect(1, says: "held by a running guest", "--qmp", "--libvirt")
    guest.end()
    try shop.strobe("snapshot", "web", "--disk", "os=qcow2:\(image)").expect(0)
    try shop.strobe("snapshot", "other", "--disk", "os=vmdk:\(image)")
      .expect(2, says: "can't be opened", "format")
  }

  @Test("A snapshot or restore that is killed leaves no server behind, and no image under its name")
  func killed() throws {
    let shop = try Workshop(seed: 64)
    let raw = try shop.image("disk.raw", 200 << 20)
    let image = shop.file("disk.qcow2")
    try Shell.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    try shop.strobe("snapshot", "web", "--disk", "os=qcow2:\(image)").expect(0)
    for words in [
      ["snapshot", "web", "--full"],
      ["restore", "web@latest", "--disk", "os=qcow2:\(shop.file("new.qcow2"))"],
    ] {
      let process = try shop.strobe.start(words, output: shop.file("killed"))
      usleep(60_000)
      process.signal(SIGKILL)
      process.wait()
      try waitUntil("no server is left") { try servers(of: shop.folder.path) == 0 }
    }
    try shop.strobe(
      "restore", "web@latest", "--disk", "os=qcow2:\(shop.file("new.qcow2"))", "--resume",
      "--overwrite"
    ).expect(0)
    try Shell.run(
      "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, shop.file("new.qcow2"))
  }

  /// How many processes of qemu-nbd serve files of a folder.
  private func servers(of folder: String) throws -> Int {
    try namesInDirectory("/proc").filter { name in
      guard Int(name) != nil, let words = try? readFile("/proc/\(name)/cmdline") else {
        return false
      }
      let text = String(decoding: words, as: UTF8.self)
      return text.hasPrefix("/usr/bin/qemu-nbd") && text.contains(folder)
    }.count
  }
}
