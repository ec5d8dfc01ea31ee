import Foundation
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Repositories in every state")
struct RepositoryStateTests {
  private func shopWithPoints() throws -> Workshop {
    let shop = try Workshop(seed: 30)
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    try shop.write(shop.bytes(4096), to: disk)
    try shop.snapshot()
    return shop
  }

  @Test(
    "Where there is no repository every command says so and how to make one",
    arguments: [
      ["list"], ["show", "web@latest"], ["verify"], ["gc"], ["delete", "web@latest"],
      ["snapshot", "web"],
      ["restore", "web@latest", "--disk", "os=/tmp/strobe-test-never"],
      ["diff", "web@-1", "web@latest"],
    ])
  func missing(words: [String]) throws {
    let folder = TemporaryDirectory()
    let none = folder.file("none")
    try Strobe(repository: none).run(words)
      .expect(1, says: "there is no repository at \(none)", "strobe init --repository \(none)")
    try Strobe(repository: folder.path).run(words)
      .expect(1, says: "\(folder.path) is not a repository", "no config.json", "strobe init")
    try Strobe(repository: "/etc/hostname").run(words).expect(
      2, says: "/etc/hostname is not a directory")
    #expect(try namesInDirectory(folder.path) == [])
  }

  @Test("init refuses what is a repository already, what isn't empty, and what is no directory")
  func initialisation() throws {
    let shop = try shopWithPoints()
    try shop.strobe("init").expect(1, says: shop.strobe.repository, "is a repository already")
    try shop.strobe("init", "--repair").expect(1, says: "needs no repair")
    try Strobe(repository: shop.folder.path)("init").expect(
      1, says: "is not empty", "empty directory")
    try Strobe(repository: shop.file("disk.raw"))("init").expect(2, says: "is not a directory")
    try Strobe(repository: shop.file("new/deep/er"))("init").expect(0).prints("is ready", "64 KiB")
    try Shell.run("mkdir", shop.file("empty"))
    try Strobe(repository: shop.file("empty"))("init", "--repair").expect(
      2, says: "no repository to repair")
    try Strobe(repository: "")("list").expect(2, says: "--repository")
    try shop.expectWhole()
  }

  @Test(
    "A damaged or lost config.json is named with the way to mend it, and mending loses nothing",
    arguments: [true, false])
  func configuration(isLost: Bool) throws {
    let shop = try shopWithPoints()
    let file = shop.strobe.repository + "/config.json"
    if isLost { try Shell.run("rm", file) } else { try shop.write([0x58], to: file, at: 20) }
    let words = isLost ? "it has no config.json" : "config.json is damaged: expected checksum"
    for command in ["list", "verify", "gc"] {
      try shop.strobe(command).expect(
        1, says: file.replacing("/config.json", with: ""), words, "strobe init --repair")
    }
    try shop.strobe("snapshot", "web").expect(1, says: words)
    if isLost { try shop.strobe("init").expect(1, says: "not empty", "init --repair") }
    try shop.strobe("init", "--repair").expect(0)
    try shop.expectWhole()
    try shop.snapshot()
    try shop.expectWhole()
  }

  @Test("A repository of a newer format is refused as that, and not taken for a damaged one")
  func newerFormat() throws {
    let shop = try shopWithPoints()
    let file = shop.strobe.repository + "/config.json"
    let text = try #require(readText(file))
    let body = try #require(text.range(of: ",\n  \"checksum\""))
    let newer = text[..<body.lowerBound].replacing("\"format\" : 1", with: "\"format\" : 99")
    let sum = try checksum(Array(newer.utf8))
    try Data("\(newer),\n  \"checksum\" : \"xxh3-64:\(sum)\"\n}\n".utf8).write(
      to: URL(filePath: file))
    for command in [
      ["list"], ["verify"], ["gc"], ["snapshot", "web"], ["restore", "web@latest", "--to", "/tmp"],
    ] {
      try shop.strobe.run(command).expect(1, says: "config.json", "format 99", "newer Strobe")
    }
    try shop.strobe("init", "--repair").expect(1, says: "newer")
    try Data((text + "\n").utf8).write(to: URL(filePath: file))
    try shop.expectWhole()
  }

  /// XXH3-64 by the library itself, as 16 hexadecimal digits.
  private func checksum(_ bytes: [UInt8]) throws -> String {
    typealias Function = @convention(c) (UnsafeRawPointer, Int) -> UInt64
    let library = unsafe dlopen("libxxhash.so.0", RTLD_NOW)
    let symbol = unsafe try #require(unsafe dlsym(library, "XXH3_64bits"))
    let function = unsafe unsafeBitCast(symbol, to: Function.self)
    let sum = unsafe bytes.withUnsafeBytes { unsafe function($0.baseAddress!, $0.count) }
    let digits = String(sum, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  @Test(
    "A read-only repository is read as ever, and what would write says why it can't",
    .enabled(if: Machine.isRoot, "needs root"))
  func readOnly() throws {
    let mount = try MemoryMount(size: "64M")
    let shop = try Workshop(seed: 31, repository: mount.path + "/repository")
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    try shop.snapshot()
    // Without its cache, which can't be written either.
    try Shell.run("rm", "-rf", shop.strobe.repository + "/cache")
    try mount.remount("ro")
    try shop.strobe("list").expect(0).prints("web@")
    try shop.strobe("show", "web@latest").expect(0)
    try shop.strobe("diff", "web@-1", "web@latest").expect(0)
    try shop.expectWhole()
    for words in [["snapshot", "web"], ["delete", "web@latest"], ["gc"]] {
      let result = try shop.strobe.run(words).expect(
        1, says: "Read-only file system", "mounted read-only")
      #expect(result.errors.contains(mount.path), "\(result.errors)")
    }
    try mount.remount("rw")
    try shop.snapshot()
    try shop.expectWhole()
  }

  @Test(
    "A full repository loses no point, keeps what was stored for the next run, and works again with more space",
    .enabled(if: Machine.isRoot, "needs root"))
  func full() throws {
    let mount = try MemoryMount(size: "256M")
    let shop = try Workshop(seed: 32, chunkSize: "4KiB", repository: mount.path + "/repository")
    let disk = try shop.image("disk.raw", 3 << 19)
    try shop.snapshot("--disk", "os=\(disk)")
    try shop.write(shop.bytes(1 << 20), to: disk, at: 4096)
    let before = try shop.objects()
    let used = try mount.used()
    var failures = 0
    var resumed = 0
    var step = 0
    // From no free page to enough for everything: fine steps where documents and layers are written.
    while step < 420 {
      try mount.remount("size=\(used + step * 4096)")
      let result = try shop.strobe("snapshot", "web", "--quiet")
      if result.status == 0 { break }
      failures += 1
      let isKept = result.errors.contains("kept for the next run; strobe gc --drop-unfinished")
      resumed += isKept ? 1 : 0
      let kept = try shop.objects().subtracting(before)
      #expect(kept.allSatisfy { $0.contains("/segments/") }, "\(step) pages")
      #expect(!isKept || !kept.isEmpty, "\(step) pages")
      #expect(try kept.isEmpty == shop.journals().isEmpty, "\(step) pages")
      // Each attempt begins anew with so much space.
      try shop.strobe("gc", "--drop-unfinished").expect(0)
      #expect(result.status == 1)
      #expect(
        result.errors.contains("No space left on device; free space there"), "\(result.errors)")
      #expect(result.errors.contains(mount.path), "\(result.errors)")
      #expect(try shop.objects() == before, "\(step) pages")
      #expect(shop.leftovers() == [], "\(step) pages")
      step += step < 12 || (255...280).contains(step) ? 1 : 27
    }
    #expect(failures > 25 && resumed > 2)
    try mount.remount("size=256M")
    try shop.strobe("delete", "web@latest").expect(0)
    try shop.expectWhole()
    try shop.snapshot()
    try shop.expectWhole()
  }

  @Test(
    "A file system without a free inode is told like a full one",
    .enabled(if: Machine.isRoot, "needs root"))
  func noInodes() throws {
    let mount = try MemoryMount(size: "64M")
    let shop = try Workshop(seed: 33, repository: mount.path + "/repository")
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    try shop.write(shop.bytes(4096), to: disk)
    let inodes = Int(
      try Shell.run("df", "--output=iused", mount.path).split(separator: "\n")[1].filter(\.isNumber)
    )!
    let before = try shop.objects()
    for more in 0..<3 {
      try mount.remount("nr_inodes=\(inodes + more)")
      try shop.strobe("snapshot", "web").expect(
        1, says: "No space left on device", "free space there")
      #expect(try shop.objects() == before)
      #expect(shop.leftovers() == [])
    }
    try mount.remount("nr_inodes=100000")
    try shop.snapshot()
    try shop.expectWhole()
  }
}
