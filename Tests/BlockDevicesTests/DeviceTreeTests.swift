import BlockDevices
import Platform
import TestSupport
import Testing

@Suite(
  "The tree of devices",
  .enabled(if: Machine.hasLoopDevices && Machine.has("sfdisk"), "needs loop devices and sfdisk"))
struct DeviceTreeTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  @Test("A device's number leads to its name and back")
  func names() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let number = try deviceNumber(loop.path)
    let name = try #require(DeviceTree.name(of: number))
    #expect("/dev/" + name == loop.path)
    #expect(DeviceTree.number(ofName: name) == number)
  }

  @Test("What doesn't exist has neither name nor number nor anything in it")
  func missing() {
    let nothing = DeviceNumber(major: 240, minor: 99_999)
    #expect(DeviceTree.name(of: nothing) == nil)
    #expect(DeviceTree.number(ofName: "strobe-no-such-device") == nil)
    #expect(DeviceTree.partition(nothing) == nil)
    #expect(DeviceTree.devices(in: nothing) == [nothing])
  }

  @Test("A partition knows its disk and number, the disk contains it")
  func partitions() throws {
    let disk = try PartitionedDisk(3, mebibytesEach: 1, in: folder)
    let whole = try deviceNumber(disk.disk.path)
    #expect(DeviceTree.partition(whole) == nil)
    var expected = [whole]
    for (index, path) in disk.partitions.enumerated() {
      let number = try deviceNumber(path)
      let found = try #require(DeviceTree.partition(number))
      #expect(found.disk == whole && found.number == index + 1)
      #expect(DeviceTree.devices(in: number) == [number])
      expected.append(number)
    }
    let found = DeviceTree.devices(in: whole)
    #expect(found.first == whole)
    #expect(Set(found) == Set(expected) && found.count == expected.count)
  }

  @Test("A loop device on a file is found by the file")
  func loopOnFile() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let unused = try LoopDevice(size: 1 << 20, in: folder)
    let facts = try #require(try FileFacts(path: loop.backing))
    #expect(try DeviceTree.loopDevices(backedBy: facts) == [deviceNumber(loop.path)])
    let second = try AttachedLoop(unused.backing)
    let both = try #require(try FileFacts(path: unused.backing))
    #expect(
      try Set(DeviceTree.loopDevices(backedBy: both))
        == [deviceNumber(unused.path), deviceNumber(second.path)])
  }

  @Test("Loop devices on a disk and on its partitions, and loops on those, lie in the disk")
  func nested() throws {
    let disk = try PartitionedDisk(1, mebibytesEach: 4, in: folder)
    let onPartition = try AttachedLoop(disk.partitions[0])
    let onLoop = try AttachedLoop(onPartition.path)
    let onDisk = try AttachedLoop(disk.disk.path)
    let inner = try [disk.partitions[0], onPartition.path, onLoop.path, onDisk.path].map(
      deviceNumber)
    let found = DeviceTree.devices(in: try deviceNumber(disk.disk.path))
    #expect(Set(found.dropFirst()) == Set(inner))
    #expect(try Set(DeviceTree.devices(in: inner[1])) == [inner[1], deviceNumber(onLoop.path)])
  }
}
