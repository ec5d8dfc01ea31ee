import BlockDevices
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Reading and writing disks", .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
struct PipelineTests {
  @Test(
    "A disk reads as it was written, also where its end is no whole page", arguments: Place.allCases
  )
  func whole(place: Place) throws {
    var generator = SeededGenerator(seed: 11)
    let content = generator.bytes(place.oddSize)
    let disk = try DiskPlace(place, size: content.count)
    try writeBytes(content, to: disk.path)
    let source = try DiskSource(path: disk.path)
    #expect(source.size == content.count)
    for (depth, requestSize) in [(1, 4096 * 16), (3, 256 << 10), (8, 1 << 20), (4, 12288)] {
      let same = try readAll(source, depth: depth, requestSize: requestSize) == content
      #expect(same, "depth \(depth), requests of \(requestSize)")
    }
  }

  @Test("An image of every small size reads to its last sector", arguments: Place.files)
  func everySmallSize(place: Place) throws {
    var generator = SeededGenerator(seed: 12)
    let content = generator.bytes(20 * 512)
    let disk = try DiskPlace(place, size: nil)
    for sectors in 1...20 {
      let path = "\(disk.directory)/image-\(sectors)"
      try writeBytes(Array(content.prefix(sectors * 512)), to: path)
      let found = try readAll(try DiskSource(path: path), depth: 2, requestSize: 8192)
      #expect(found == Array(content.prefix(sectors * 512)), "\(sectors) sectors")
    }
  }

  @Test("Results come in the order of the requests, whatever that is", arguments: Place.allCases)
  func order(place: Place) throws {
    var generator = SeededGenerator(seed: 13)
    let content = generator.bytes(2 << 20)
    let disk = try DiskPlace(place, size: content.count)
    try writeBytes(content, to: disk.path)
    let source = try DiskSource(path: disk.path)
    var pipeline = try ReadPipeline(
      source: source, depth: 5, requestSize: 128 << 10, stop: CancellationFlag())
    var asked: [Range<Int>] = []
    var answered = 0
    while answered < 300 {
      while pipeline.hasRoom {
        let offset = Int.random(in: 0..<(content.count / 4096), using: &generator) * 4096
        let length = Int.random(in: 1...256, using: &generator) * 512
        let range = offset..<min(offset + length, content.count)
        asked.append(range)
        try pipeline.start(offset: range.lowerBound, length: range.count)
      }
      let found = try unsafe pipeline.next()
      let same = unsafe Array(found) == Array(content[asked[answered]])
      try #require(same, "request \(answered): \(asked[answered])")
      pipeline.release()
      answered += 1
    }
  }

  @Test("What is written in any order is what is read then", arguments: Place.allCases)
  func written(place: Place) throws {
    var generator = SeededGenerator(seed: 14)
    let content = generator.bytes(place.oddSize)
    let disk = try DiskPlace(place, size: place.isDevice ? content.count : nil)
    let target =
      place.isDevice
      ? try DiskTarget(device: disk.path)
      : try DiskTarget(newFile: disk.path, size: content.count, replaces: false)
    #expect(target.size == content.count && target.isDevice == place.isDevice)
    let order = pieces(content.count, 64 << 10).shuffled(using: &generator)
    try write(content, order, to: target)
    try target.finish()
    let same = try readAll(try DiskSource(path: disk.path)) == content
    #expect(same)
  }

  @Test(
    "Pieces of odd sizes, with gaps between them, leave zeros in the gaps",
    arguments: Place.allCases)
  func gaps(place: Place) throws {
    var generator = SeededGenerator(seed: 15)
    let size = 1 << 20
    let content = generator.bytes(size)
    let sector = place == .loop4096 ? 4096 : 512
    var expected = [UInt8](repeating: 0, count: size)
    var some: [Range<Int>] = []
    for start in stride(from: 0, to: size, by: 64 << 10) {
      let count = Int.random(in: 1...((64 << 10) / sector), using: &generator) * sector
      some.append(start..<(start + count))
      expected.replaceSubrange(start..<(start + count), with: content[start..<(start + count)])
    }
    let disk = try DiskPlace(place, size: place.isDevice ? size : nil)
    let target =
      place.isDevice
      ? try DiskTarget(device: disk.path)
      : try DiskTarget(newFile: disk.path, size: size, replaces: false)
    try write(content, some.shuffled(using: &generator), to: target)
    try target.finish()
    let same = try readAll(try DiskSource(path: disk.path)) == expected
    #expect(same)
  }

  @Test("A pass that was cancelled gets no more bytes")
  func cancelled() throws {
    let disk = try DiskPlace(.loop512, size: 1 << 20)
    let stop = CancellationFlag()
    var pipeline = try ReadPipeline(
      source: try DiskSource(path: disk.path), depth: 4, requestSize: 65536, stop: stop)
    try pipeline.start(offset: 0, length: 65536)
    stop.cancel()
    do throws(StrobeError) {
      _ = try unsafe pipeline.next()
      Issue.record("bytes came")
    } catch {
      #expect(error.reason == .cancelled)
    }
  }

  @Test("Reads in flight may be dropped: their buffers live until the kernel is done")
  func dropped() throws {
    let disk = try DiskPlace(.loop512, size: 8 << 20)
    let source = try DiskSource(path: disk.path)
    for _ in 0..<50 {
      var pipeline = try ReadPipeline(
        source: source, depth: 8, requestSize: 1 << 20, stop: CancellationFlag())
      for index in 0..<8 { try pipeline.start(offset: index << 20, length: 1 << 20) }
    }
  }
}

@Suite("Asynchronous I/O")
struct AsyncIOTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")

  /// Slots and results of everything in flight.
  private func collect(_ io: inout AsyncIO, _ count: Int) throws(StrobeError) -> [Int: Int] {
    var results: [Int: Int] = [:]
    while results.count < count {
      try io.wait(stop: CancellationFlag()) { results[$0] = $1 }
    }
    return results
  }

  @Test("Each slot gets its own bytes, and a short end is told by its count")
  func slots() throws {
    var generator = SeededGenerator(seed: 16)
    let content = generator.bytes(4096 * 4 - 100)
    try writeBytes(content, to: folder.file("content"))
    let file = try FileDescriptor(opening: folder.file("content"), O_RDONLY)
    var io = try AsyncIO(slotCount: 6, slotSize: 4096)
    for slot in 0..<6 {
      try io.startRead(slot: slot, file.number, count: 4096, at: (5 - slot) * 4096)
    }
    let results = try collect(&io, 6)
    #expect(results == [0: 0, 1: 0, 2: 3996, 3: 4096, 4: 4096, 5: 4096])
    for slot in 2..<6 {
      let start = (5 - slot) * 4096
      let expected = Array(content[start..<min(start + 4096, content.count)])
      let found = unsafe Array(
        UnsafeRawBufferPointer(start: io.address(ofSlot: slot), count: expected.count))
      #expect(found == expected, "slot \(slot)")
    }
  }

  @Test(
    "A failed request is told by its errno",
    .enabled(if: Machine.hasLoopDevices, "needs loop devices"))
  func failure() throws {
    let loop = try LoopDevice(size: 1 << 20, in: folder)
    let file = try FileDescriptor(opening: loop.path, O_WRONLY)
    var io = try AsyncIO(slotCount: 1, slotSize: 4096)
    try io.startWrite(slot: 0, file.number, count: 4096, at: 1 << 20)
    let results = try collect(&io, 1)
    #expect(results == [0: -Int(ENOSPC)])
  }

  @Test("A descriptor that can't be read is refused at once")
  func badDescriptor() throws {
    let file = try FileDescriptor(opening: "/dev/null", O_WRONLY)
    var io = try AsyncIO(slotCount: 1, slotSize: 4096)
    do throws(StrobeError) {
      try io.startRead(slot: 0, file.number, count: 4096, at: 0)
      Issue.record("it was taken")
    } catch {
      #expect(error.errno == EBADF)
    }
  }

  @Test("Waiting for a device that never answers ends when it is cancelled")
  func cancelledWait() throws {
    var io = try AsyncIO(slotCount: 1, slotSize: 4096)
    let stop = CancellationFlag()
    stop.cancel()
    do throws(StrobeError) {
      try io.wait(stop: stop) { _, _ in Issue.record("nothing was asked for") }
      Issue.record("it returned")
    } catch {
      #expect(error.reason == .cancelled)
    }
  }
}
