import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Disks behind NBD", .enabled(if: Machine.has("qemu-nbd", "nbdkit"), "needs qemu-utils and nbdkit")
)
struct NBDTests {
  @Test(
    "A disk behind NBD is taken, again with its changes only, and restored to NBD, by one connection or several",
    arguments: [1, 0])
  func roundTrip(connections: Int) throws {
    let shop = try Workshop(seed: 50)
    let image = try shop.image("disk.raw", 20 << 20, random: 5 << 20)
    let server = try NBDServer.qemu(shop, image, "--shared=\(connections)")
    let words = ["--disk", "os=\(server.uri)", "--idle", "os"]
    let first = try shop.strobe.run(["snapshot", "web", "--json"] + words).expect(0).json()
    #expect(first["consistency"].text == "CrashConsistent")
    // The hole was not read.
    #expect(first["disks"][0]["readBytes"].number == 5 << 20)
    try shop.write(shop.bytes(100_000), to: image, at: 9 << 20)
    let second = try shop.strobe("snapshot", "web", "--json", "--idle", "os").expect(0).json()
    #expect(second["disks"][0]["changedChunks"].number == 2)
    try shop.image("target.raw", 20 << 20)
    let target = try NBDServer.qemu(shop, shop.file("target.raw"), "--shared=\(connections)")
    let to = "os=\(target.uri)"
    try shop.strobe("restore", "web@latest", "--disk", to).expect(0)
    expectSame(shop.file("target.raw"), image)
    try shop.write(shop.bytes(1 << 20), to: shop.file("target.raw"), at: 3 << 20)
    let again = try shop.strobe("restore", "web@latest", "--disk", to, "--resume", "--json").expect(
      0)
    #expect(try again.json()["disks"][0]["writtenBytes"].number ?? 0 <= 2 << 20)
    expectSame(shop.file("target.raw"), image)
    try shop.strobe("verify", "web", "--against-source").expect(0)
  }

  @Test("Nobody can tell whether a disk behind NBD was written to, so nobody says that it wasn't")
  func unwatched() throws {
    let shop = try Workshop(seed: 51)
    let server = try NBDServer.qemu(shop, shop.image("disk.raw", 1 << 20), "--read-only")
    let result = try shop.strobe("snapshot", "web", "--disk", "os=\(server.uri)")
    result.expect(3, says: "Inconsistent", "--idle os")
    try shop.strobe("snapshot", "web", "--idle", "so").expect(1, says: "no disk 'so'")
  }

  @Test("A server that fails, or ends, ends the snapshot; nothing is committed")
  func failures() throws {
    let shop = try Workshop(seed: 52)
    let image = try shop.image("disk.raw", 64 << 20)
    let failing = try NBDServer.nbdkit(
      shop, "--filter=error", "file", image, "error-pread=EIO", "error-pread-rate=20%")
    try shop.strobe("snapshot", "web", "--disk", "os=\(failing.uri)", "--idle", "os")
      .expect(1, says: "read error in bytes", "nothing was committed")
    let slow = try NBDServer.nbdkit(shop, "--filter=delay", "file", image, "delay-read=60")
    let pass = try shop.strobe.start(
      ["snapshot", "web", "--disk", "os=\(slow.uri)", "--idle", "os"], output: shop.file("slow"))
    usleep(1_500_000)
    slow.end()
    #expect(pass.wait() == 1)
    try shop.strobe("snapshot", "web", "--disk", "os=\(slow.uri)").expect(
      1, says: "can't be opened")
    let list = try shop.strobe("list", "web")
    #expect(!list.output.contains("web@"), "\(list.output)")
  }

  @Test("A target whose server hangs can be given up")
  func hangingTarget() throws {
    let shop = try Workshop(seed: 58)
    try shop.snapshot("--disk", "os=\(shop.image("disk.raw", 4 << 20, random: 1 << 20))")
    let server = try NBDServer.nbdkit(shop, "--filter=delay", "memory", "4M", "delay-zero=6000")
    let output = shop.file("hanging")
    let restore = try shop.strobe.start(
      ["restore", "web@latest", "--disk", "os=\(server.uri)"], output: output)
    usleep(1_500_000)
    restore.signal(SIGINT)
    #expect(restore.wait() == 130, "\(readText(output + ".err") ?? "")")
  }

  @Test("A server that takes small requests only is read and written with such")
  func smallRequests() throws {
    let shop = try Workshop(seed: 54, chunkSize: "1MiB")
    let image = try shop.image("disk.raw", (4 << 20) + 4096, random: 3 << 20)
    try shop.write(shop.bytes(4096), to: image, at: 4 << 20)
    try shop.image("target.raw", (4 << 20) + 4096)
    func server(_ path: String) throws -> NBDServer {
      try .nbdkit(
        shop, "--filter=blocksize-policy", "file", path, "blocksize-minimum=4096",
        "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error")
    }
    let (source, target) = try (server(image), server(shop.file("target.raw")))
    try shop.strobe("snapshot", "web", "--disk", "os=\(source.uri)", "--idle", "os").expect(0)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target.uri)").expect(0)
    expectSame(shop.file("target.raw"), image)
  }

  @Test(
    "A target that is read-only, too small, full or away is refused or fails with what it is",
    arguments: [
      ("readonly", 1, "exported read-only"), ("small", 1, "needs 4194304"),
      ("full", 1, "No space left"), ("away", 1, "can't be opened"),
    ] as [(String, Int32, String)])
  func targets(kind: String, status: Int32, says: String) throws {
    let shop = try Workshop(seed: 53)
    try shop.snapshot("--disk", "os=\(shop.image("disk.raw", 4 << 20))")
    let server: NBDServer
    switch kind {
    case "readonly": server = try .nbdkit(shop, "-r", "memory", "4M")
    case "small": server = try .nbdkit(shop, "memory", "3M")
    case "full":
      server = try .nbdkit(
        shop, "--filter=error", "memory", "4M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
    default:
      server = try .nbdkit(shop, "memory", "4M")
      server.end()
    }
    try shop.strobe("restore", "web@latest", "--disk", "os=\(server.uri)").expect(
      status, says: says)
  }

  @Test(
    "A server without zeroing, flushing or several connections gets every byte",
    arguments: ["nozero", "noextents", "nomulti"])
  func poorServers(lack: String) throws {
    let shop = try Workshop(seed: 54)
    let image = try shop.image("disk.raw", (6 << 20) + 1536, random: 2 << 20)
    try shop.snapshot("--disk", "os=\(image)")
    let words =
      switch lack {
      case "nozero": ["--filter=nozero"]
      case "noextents": ["--filter=noextents"]
      default: ["--filter=multi-conn", "multi-conn-mode=disable"]
      }
    let copy = try shop.image("copy.raw", (6 << 20) + 1536)
    let server = try NBDServer(
      shop,
      ["nbdkit", "--foreground", "--unix", "SOCKET"] + words.prefix(1) + ["file", copy]
        + words.dropFirst())
    try shop.strobe("restore", "web@latest", "--disk", "os=\(server.uri)").expect(0)
    expectSame(copy, image)
    try shop.strobe("snapshot", "copy", "--disk", "os=\(server.uri)", "--idle", "os").expect(0)
    try shop.strobe("restore", "copy@latest", "--disk", "os=\(shop.file("back.raw"))").expect(0)
    expectSame(shop.file("back.raw"), image)
  }

  @Test(
    "A disk's own source is refused as a target, however its URI is written",
    arguments: ["SAME", "nbd://LOCALHOST:PORT", "nbd://user@localhost:PORT/"])
  func ownSource(spelling: String) throws {
    let shop = try Workshop(seed: 56)
    let image = try shop.image("disk.raw", 2 << 20)
    let (server, port) = try NBDServer.onLoopback(shop, "file", image)
    let source = "nbd://localhost:\(port)"
    try shop.strobe("snapshot", "web", "--disk", "os=\(source)", "--idle", "os").expect(0)
    let target = spelling == "SAME" ? source : spelling.replacing("PORT", with: port)
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)")
      .expect(1, says: "is disk os of collection web itself", "--overwrite-source")
    try shop.strobe("restore", "web@latest", "--disk", "os=\(target)", "--overwrite-source").expect(
      0)
    server.end()
  }

  @Test("A server that says that it has more bytes than any disk is refused")
  func hugeDisk() throws {
    let shop = try Workshop(seed: 57)
    let server = try NBDServer.nbdkit(shop, "null", "9223372036854775296")
    try shop.strobe("snapshot", "web", "--disk", "os=\(server.uri)", "--idle", "os")
      .expect(2, says: "more than any disk")
  }

  @Test(
    "A URI that leads nowhere is refused with what it should look like; a password is never shown")
  func badURIs() throws {
    let shop = try Workshop(seed: 55)
    let none = shop.file("none.sock")
    try shop.strobe("snapshot", "web", "--disk", "os=nbd+unix:///?socket=\(none)")
      .expect(1, says: "can't be opened", "does the server run?")
    let result = try shop.strobe("snapshot", "web", "--disk", "os=nbd://me:secret@127.0.0.1:1/x")
    result.expect(1, says: "can't be opened")
    #expect(!result.errors.contains("secret"), "\(result.errors)")
  }
}
