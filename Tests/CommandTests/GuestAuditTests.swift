import Foundation
import Platform
import TestSupport
import Testing

@Suite(
  "What was written past QEMU is found by looking at some of what had content",
  .enabled(if: QEMUGuest.isPossible, "needs qemu-system-x86 and qemu-utils"))
struct GuestAuditTests {
  private static let size = 1 << 30
  private static let content = 512 << 10
  private static let place = 600 << 20

  /// Most of the disk is holes: a sample of any 64 of its 16,384 chunks would find one of the 8 once in thirty times.
  @Test("Other content in the little that a large disk holds")
  func sparse() throws {
    let shop = try Workshop(seed: 95)
    let raw = try shop.image("os.raw", Self.size, random: 0)
    try shop.write(shop.bytes(Self.content), to: raw, at: Self.place)
    let image = shop.file("os.qcow2")
    try Shell.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    var guest = try QEMUGuest(shop, [("os", "qcow2", image)])
    try shop.strobe("snapshot", "vm", "--qmp", guest.monitor).expect(0)
    try guest.ask(#"{"execute":"quit"}"#)
    guest.end()
    for extent in try extents(image) {
      try shop.write(shop.bytes(extent.count), to: image, at: extent.lowerBound)
    }
    guest = try QEMUGuest(shop, [("os", "qcow2", image)])
    let result = try shop.strobe("snapshot", "vm", "--qmp", guest.monitor, "--json")
    #expect(result.status == 0 && result.errors.contains("missed a write"), "\(result.errors)")
    #expect(try result.json()["disks"][0]["changedChunks"].number == 8)
    let copy = shop.file("copy.raw")
    try shop.strobe("restore", "vm@latest", "--disk", "os=\(copy)").expect(0)
    let same = try Shell.capture(
      ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", copy, image, "-U"])
    #expect(same.status == 0, "\(same.output)")
  }

  /// Where in its file the image keeps the content.
  private func extents(_ image: String) throws -> [Range<Int>] {
    let text = try Shell.run("qemu-img", "map", "--output=json", "-f", "qcow2", image)
    let map = JSON(try JSONSerialization.jsonObject(with: Data(text.utf8))).list
    let found = map.filter { $0["data"].flag == true }.compactMap { extent -> Range<Int>? in
      guard let offset = extent["offset"].number, let length = extent["length"].number else {
        return nil
      }
      return offset..<offset + length
    }
    try #require(found.reduce(0) { $0 + $1.count } == Self.content, "\(text)")
    return found
  }
}
