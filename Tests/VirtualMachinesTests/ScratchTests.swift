import CLinux
import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

@Suite("Scratch images")
struct ScratchTests {
  @Test(
    "An overlay is what qemu-img takes for an empty, faultless image",
    .enabled(if: Machine.has("qemu-img"), "needs qemu-img"),
    arguments: [512, 65_536, 1 << 20, (1 << 29) - 512, 1 << 29, (1 << 29) + 512, 5 << 40])
  func overlay(size: Int) throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let path = folder.file("overlay")
    try ScratchImage.makeOverlay(FileDescriptor(opening: path, O_RDWR | O_CREAT), size: size)
    let check = try Shell.capture(["qemu-img", "check", "-f", "qcow2", path])
    #expect(check.status == 0, "\(check.output)\(check.errors)")
    let text = try Shell.run("qemu-img", "info", "--output=json", "-f", "qcow2", path)
    let facts = try #require(JSONValue(decoding: text.utf8))
    #expect(facts["virtual-size"]?.integer == size)
  }

  @Test("An overlay that is full takes no more than was reckoned with")
  func limit() throws {
    try #require(Machine.has("qemu-img", "qemu-io"), "needs qemu-img and qemu-io")
    let folder = TemporaryDirectory(in: "/dev/shm")
    let path = folder.file("overlay")
    let size = (3 << 20) + 512
    try ScratchImage.makeOverlay(FileDescriptor(opening: path, O_RDWR | O_CREAT), size: size)
    try Shell.run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 \(size)", path)
    let facts = try #require(try FileFacts(path: path))
    #expect(Int(facts.blocks512) * 512 <= ScratchImage.overlayLimit(size: size))
    #expect(try Shell.capture(["qemu-img", "check", "-f", "qcow2", path]).status == 0)
  }
}

@Suite("Names of what a pass makes in QEMU")
struct PassNamesTests {
  @Test("Say who made them, and are short enough for QEMU")
  func roundTrip() throws {
    for process in [1, 4_194_304] {
      let mark = try #require(
        ProcessMark(
          reading: String(process, radix: 36) + "." + String(36 * 36 * 36 * 36 - 1, radix: 36)))
      let names = PassNames(collection: "0123456789abcdef01234567", owner: mark)
      let name = names.name(.filter, 999)
      #expect(name.utf8.count <= PassNames.longest)
      #expect(PassNames(reading: name) == names && PassNames.kind(of: name) == .filter)
      #expect(PassNames(reading: names.stem) == names)
    }
    #expect(ProcessMark.own.isAlive)
    #expect(ProcessMark(reading: "2hxq9.0")?.isAlive != true)
  }

  @Test(
    "Other names are nobody's",
    arguments: [
      "", "strobe-", "node0", "#block123", "strobe-0123abcd-1.1-c0-x", "strobe-0123abcd-1-c0",
      "strobe-0123abc-1.1-c0", "strobe-0123abcd-0.1-c0", "strobe-0123abcd--1.1-c0",
      "strobe-0123abcd-zzzzzzzzzzzz.1-c0",
      "strobe-aabbccddeeff001122334455-000000000000000000000001",
    ])
  func others(name: String) { #expect(PassNames(reading: name) == nil) }
}
