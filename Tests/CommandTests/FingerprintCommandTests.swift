import Platform
import TestSupport
import Testing

@Suite("Fingerprints by SHA-256, as a user meets them")
struct FingerprintCommandTests {
  @Test("init chooses the kind, list and show tell it, and everything works with it")
  func wholePath() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let shop = try Workshop(seed: 110)
    let other = Strobe(repository: folder.file("sha"))
    try other("init", "--fingerprint", "sha256").expect(0)
      .prints("is ready (chunks of 64 KiB, fingerprints by sha256-128)")
    #expect(
      try shop.strobe("init", "--json", "--repository", folder.file("x")).expect(0).json()[
        "fingerprint"
      ].text == "xxh3-128")
    let disk = try shop.image("disk.raw", 3 << 20)
    for round in 0..<3 {
      try shop.write(shop.bytes(100_000), to: disk, at: round * 700_001)
      try other("snapshot", "web", "--disk", "os=\(disk)").expect(0)
      try shop.strobe("snapshot", "web", "--disk", "os=\(disk)").expect(0)
    }
    let nothing = try other("snapshot", "web", "--json").expect(0).json()
    #expect(nothing["disks"][0]["changedChunks"].number == 0)
    #expect(nothing["fingerprint"].text == "sha256-128")
    let lines = try other("list").expect(0).output.split(separator: "\n")
    #expect(lines.dropFirst().allSatisfy { $0.hasSuffix("  sha256-128") } && lines.count == 5)
    try other("protect", "web@latest").expect(0)
    #expect(try other("list").output.hasSuffix("  sha256-128, protected\n"))
    #expect(
      try other("list", "--json").json()["collections"][0]["points"][0]["fingerprint"].text
        == "sha256-128")
    try other("show", "web@latest").expect(0).prints("64 KiB, fingerprints by sha256-128")
    #expect(try other("show", "web@latest", "--json").json()["fingerprint"].text == "sha256-128")
    for command in ["list", "show"] {
      let words = command == "show" ? ["show", "web@latest"] : ["list"]
      for text in [words, words + ["--json"]] {
        #expect(try !shop.strobe.run(text).output.contains("-128"))
      }
    }
    try other("verify").expect(0)
    // The other repository knows the disk in the same chunks.
    let changes = try [other, shop.strobe].map {
      try $0("diff", "web@-2", "web@-1", "--json").expect(0).json()["disks"][0]["ranges"].list.count
    }
    #expect(changes[0] > 0)
    try other("restore", "web@latest", "--disk", "os=\(folder.file("target"))").expect(0)
    expectSame(folder.file("target"), disk)
  }

  @Test("A flipped byte is found, a lost head table and a lost collection.json are made again")
  func damage() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let shop = try Workshop(seed: 111)
    let strobe = Strobe(repository: folder.file("sha"))
    try strobe("init", "--fingerprint", "sha256", "--quiet").expect(0)
    let disk = try shop.image("disk.raw", 1 << 20)
    try strobe("snapshot", "web", "--disk", "os=\(disk)").expect(0)
    try Shell.run("rm", "-r", strobe.repository + "/cache")
    #expect(
      try strobe("snapshot", "web", "--json").expect(0).json()["disks"][0]["changedChunks"].number
        == 0)
    try removeFile(strobe.repository + "/collections/web/collection.json")
    let again = try strobe("snapshot", "web", "--json").json()
    #expect(again["disks"][0]["changedChunks"].number == 0)
    #expect(again["fingerprint"].text == "sha256-128")
    let segment = try Shell.run(
      "find", strobe.repository + "/segments", "-type", "f", "-size", "+99k")
    let path = String(try #require(segment.split(separator: "\n").first))
    try shop.write(Array(repeating: 0x55, count: 3), to: path, at: 70_000)
    try strobe("verify").expect(1, says: "fingerprint")
    try strobe("restore", "web@latest", "--disk", "os=\(folder.file("t"))").expect(
      1, says: "fingerprint")
  }

  @Test("A collection.json that isn't the points' own begins a new chain, and nothing is mixed")
  func foreignRecord() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let shop = try Workshop(seed: 112)
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    let other = Strobe(repository: folder.file("sha"))
    try other("init", "--fingerprint", "sha256").expect(0)
    try other("snapshot", "web", "--disk", "os=\(disk)").expect(0)
    let name = "/collections/web/collection.json"
    try Shell.run("cp", other.repository + name, shop.strobe.repository + name)
    let result = try shop.strobe("snapshot", "web")
    #expect(result.status == 0 && result.errors.contains("fingerprints are made otherwise"))
    result.prints("full: the collection's fingerprints")
    try shop.expectWhole()
  }

  @Test("Another word is wrong usage; the help says what each costs")
  func usage() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let strobe = Strobe(repository: folder.file("r"))
    for word in ["md5", "SHA256", "sha256-128"] {
      try strobe("init", "--fingerprint", word).expect(2, says: "--fingerprint '\(word)'", "sha256")
      #expect(try FileFacts(path: strobe.repository) == nil)
    }
    try strobe("init", "--help").expect(0).prints("--fingerprint sha256|xxh3", "processor time")
  }
}
