import Glibc
import Platform
import TestSupport
import Testing

@Suite(
  "Two passes of one guest",
  .enabled(if: QEMUGuest.isPossible, "needs qemu-system-x86 and qemu-utils")
)
struct GuestRivalTests {
  private static let locks = "/run/strobe"

  /// QEMU 7.2 ended with a failed assertion when one took the other's filters for leftovers.
  @Test(
    "Through another monitor, into another collection, from the first step on: refused, the guest unharmed",
    arguments: [[], ["-uuid", "7f5e8d1c-2a4b-4c6d-8e9f-0123456789ab"]])
  func refused(more: [String]) throws {
    let shop = try Workshop(seed: 97)
    let raw = try shop.image("os.raw", 16 << 20)
    let image = shop.file("os.qcow2")
    try Shell.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    let guest = try QEMUGuest(shop, [("os", "qcow2", image)], more: more)
    let first = try shop.strobe.start(
      ["snapshot", "one", "--qmp", guest.monitor], output: shop.file("first"))
    try waitUntil("it has the guest") { try lock(of: first.id) != nil }
    first.signal(SIGSTOP)
    try shop.strobe("snapshot", "two", "--qmp", guest.own)
      .expect(1, says: "process \(first.id) reads the guest at \(guest.own)")
    first.signal(SIGCONT)
    #expect(first.wait() == 0, "\(readText(shop.file("first.err")) ?? "")")
    #expect(try lock(of: first.id) == nil)
    try shop.strobe("snapshot", "two", "--qmp", guest.own).expect(0)
    #expect(try guest.ask(#"{"execute":"query-status"}"#).contains("\"running\": true"))
  }

  @Test("One that was killed is no rival")
  func killed() throws {
    let shop = try Workshop(seed: 98)
    let image = shop.file("os.qcow2")
    try Shell.run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    let guest = try QEMUGuest(shop, [("os", "qcow2", image)])
    let first = try shop.strobe.start(["snapshot", "one", "--qmp", guest.monitor])
    try waitUntil("it has the guest") { try lock(of: first.id) != nil }
    first.signal(SIGKILL)
    first.wait()
    try shop.strobe("snapshot", "two", "--qmp", guest.monitor).expect(0)
  }

  /// The file that a process holds while it has a guest.
  private func lock(of process: Int32) throws -> String? {
    guard try FileFacts(path: Self.locks) != nil else { return nil }
    return try namesInDirectory(Self.locks).first {
      $0.hasPrefix("guest-") && readText("\(Self.locks)/\($0)") == "\(process)"
    }
  }
}
