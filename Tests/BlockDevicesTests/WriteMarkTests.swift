import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Marks of writing", .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct WriteMarkTests {
  /// File times of older kernels advance by the timer's ticks: lets one pass.
  private func waitForATick() {
    func coarse() -> Int {
      var time = timespec()
      unsafe clock_gettime(CLOCK_REALTIME_COARSE, &time)
      return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
    let start = coarse()
    while coarse() == start { usleep(500) }
  }

  @Test("Reading all of a disk leaves its mark as it was", arguments: Place.allCases)
  func reading(place: Place) throws {
    let disk = try DiskPlace(place, size: 1 << 20)
    try writeBytes([UInt8](repeating: 1, count: 65536), to: disk.path)
    let source = try DiskSource(path: disk.path)
    let before = try WriteMark(of: source)
    _ = try readAll(source)
    _ = try DiskSource(path: disk.path)
    #expect(try WriteMark(of: source) == before)
  }

  @Test("A write of one sector changes it", arguments: Place.allCases)
  func writing(place: Place) throws {
    let disk = try DiskPlace(place, size: 1 << 20)
    let source = try DiskSource(path: disk.path)
    let before = try WriteMark(of: source)
    waitForATick()
    try writeBytes([UInt8](repeating: 1, count: 512), to: disk.path, at: 4096)
    #expect(try WriteMark(of: source) != before)
  }

  @Test("Writing the same bytes again is writing", arguments: [Place.loop512, .ext4])
  func sameBytes(place: Place) throws {
    let disk = try DiskPlace(place, size: 1 << 20)
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.path)
    let source = try DiskSource(path: disk.path)
    let before = try WriteMark(of: source)
    waitForATick()
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.path)
    #expect(try WriteMark(of: source) != before)
  }

  @Test(
    "Discarding and zeroing change it", .enabled(if: Machine.has("blkdiscard"), "needs blkdiscard"),
    arguments: [[], ["--zeroout"]])
  func discarding(options: [String]) throws {
    let disk = try DiskPlace(.loop512, size: 4 << 20)
    let source = try DiskSource(path: disk.path)
    let before = try WriteMark(of: source)
    let words = ["blkdiscard"] + options + ["--offset", "1048576", "--length", "65536", disk.path]
    #expect(try Shell.capture(words).status == 0)
    #expect(try WriteMark(of: source) != before)
  }

  @Test(
    "Growing a file, punching a hole and setting its times back change it",
    arguments: ["truncate -s 2M", "fallocate -p -o 0 -l 4096", "touch -d 2001-01-01"])
  func otherChanges(command: String) throws {
    let disk = try DiskPlace(.tmpfs, size: 1 << 20)
    try writeBytes([UInt8](repeating: 1, count: 8192), to: disk.path)
    let source = try DiskSource(path: disk.path)
    let before = try WriteMark(of: source)
    waitForATick()
    try Shell.run("sh", "-c", "\(command) \(disk.path)")
    #expect(try WriteMark(of: source) != before)
  }

  @Test(
    "A write to a partition, or through its whole disk, changes the marks of all on the disk",
    .enabled(if: Machine.has("sfdisk"), "needs sfdisk"))
  func partitions() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let disk = try PartitionedDisk(2, mebibytesEach: 1, in: folder)
    let sources = try ([disk.disk.path] + disk.partitions).map { try DiskSource(path: $0) }
    let before = try sources.map { try WriteMark(of: $0) }
    try writeBytes([UInt8](repeating: 1, count: 4096), to: disk.partitions[1])
    let after = try sources.map { try WriteMark(of: $0) }
    for index in sources.indices { #expect(after[index] != before[index]) }
    try writeBytes([UInt8](repeating: 2, count: 4096), to: disk.disk.path)
    for index in sources.indices { #expect(try WriteMark(of: sources[index]) != after[index]) }
  }

  @Test("Where writes aren't counted no two marks are equal")
  func uncounted() throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let disk = try LoopDevice(size: 1 << 20, in: folder)
    let source = try DiskSource(path: disk.path)
    #expect(try WriteMark(of: source) == WriteMark(of: source))
    let switchFile = "/sys/block/\(lastComponent(disk.path))/queue/iostats"
    try Shell.run("sh", "-c", "echo 0 > \(switchFile)")
    defer { _ = try? Shell.run("sh", "-c", "echo 1 > \(switchFile)") }
    #expect(try WriteMark(of: source) != WriteMark(of: source))
  }
}
