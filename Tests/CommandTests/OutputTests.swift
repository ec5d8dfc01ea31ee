import Platform
import TestSupport
import Testing

@Suite("Where output goes")
struct OutputTests {
  private func shopWithPoint() throws -> Workshop {
    let shop = try Workshop(seed: 50)
    let disk = try shop.image("disk.raw", 1 << 20)
    try shop.snapshot("--disk", "os=\(disk)")
    return shop
  }

  @Test(
    "Output that can't be written is a failure and says so",
    arguments: [
      "list", "list --json", "show web@latest", "verify", "diff web@latest web@latest", "gc",
      "--help",
    ])
  func unwritable(command: String) throws {
    let shop = try shopWithPoint()
    try shop.strobe.shell("strobe \(command) >/dev/full")
      .expect(1, says: "standard output: No space left on device")
    try shop.strobe.shell("strobe \(command) >&-").expect(
      1, says: "standard output: Bad file descriptor")
    let early = try shop.strobe.shell("strobe \(command) | true; exit ${PIPESTATUS[0]}")
    #expect(early.status == 0 && early.errors == "")
    try shop.expectWhole()
  }

  @Test("With standard output and error closed nothing of them lands in the repository or a target")
  func closed() throws {
    let shop = try shopWithPoint()
    let (disk, target) = (shop.file("disk.raw"), shop.file("target.raw"))
    try shop.write(shop.bytes(1 << 20), to: disk)
    #expect(try shop.strobe.shell("strobe snapshot web --json <&- >&- 2>&-").status == 1)
    #expect(try shop.strobe.shell("strobe snapshot nothing <&- >&- 2>&-").status == 2)
    #expect(
      try shop.strobe.shell("strobe restore web@latest --disk os=\(target) <&- >&- 2>&-").status
        == 1)
    expectSame(target, disk)
    try removeFile(target)
    let trace = shop.file("trace")
    if Machine.has("strace") {
      let line =
        "strace -f -o \(trace) -e trace=openat \"$STROBE_PROGRAM\" snapshot web <&- >&- 2>&-"
      _ = try shop.strobe.shell(line)
      let opened = readText(trace)?.split(separator: "\n").filter {
        $0.contains("O_RDWR") || $0.contains("O_WRONLY")
      }
      #expect(opened?.contains { ["= 0", "= 1", "= 2"].contains($0.suffix(3)) } == false)
    }
    try shop.expectWhole()
  }

  @Test("A message is one line, whatever a path holds, and carries nothing that a terminal acts on")
  func hostilePath() throws {
    let shop = try shopWithPoint()
    for path in ["/tmp/strobe-test-\u{1B}[31m", "/tmp/strobe-test-\n/strobe: fine"] {
      let commands = [
        ["snapshot", "web", "--disk", "x=\(path)"],
        ["restore", "web@latest", "--disk", "os=\(path)/x"],
        ["list", "--repository", path], ["frob\(path)"], ["list", "--\(path)"],
      ]
      for words in commands {
        let result = try shop.strobe.run(words)
        #expect(result.status == 1 || result.status == 2)
        #expect(!result.errors.contains("\u{1B}"), "\(result.errors)")
        #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
      }
    }
    try shop.expectWhole()
  }

  @Test("No progress is shown where standard error is no terminal")
  func progress() throws {
    let shop = try shopWithPoint()
    try shop.strobe("snapshot", "web").expect(0)
    try shop.strobe("verify").expect(0)
  }
}
