import CLinux
import Glibc
import Platform
import TestSupport
import Testing

@Suite("File descriptors")
struct FileDescriptorTests {
  private let folder = TemporaryDirectory()

  /// Reads `count` bytes into a buffer that was full of 0xAA.
  private func read(_ path: String, at offset: Int, count: Int) throws -> (got: Int, bytes: [UInt8])
  {
    let file = try FileDescriptor(opening: path, O_RDONLY)
    var bytes = [UInt8](repeating: 0xAA, count: count)
    let got = try unsafe bytes.withMutableBytes { (memory) throws(StrobeError) in
      try unsafe file.read(at: offset, into: memory)
    }
    return (got, bytes)
  }

  @Test(
    "A read fills its buffer or stops where the file ends, and touches nothing behind that",
    arguments: [
      (0, 1000, 1000), (0, 400, 400), (600, 400, 400), (600, 401, 400), (999, 10, 1),
      (1000, 10, 0), (5000, 10, 0), (0, 0, 0),
    ])
  func shortEnds(offset: Int, count: Int, expected: Int) throws {
    var generator = SeededGenerator(seed: 1)
    let content = generator.bytes(1000)
    let path = folder.file("content")
    try writeBytes(content, to: path)
    let (got, bytes) = try read(path, at: offset, count: count)
    #expect(got == expected)
    #expect(Array(bytes.prefix(got)) == Array(content.dropFirst(offset).prefix(expected)))
    #expect(bytes.dropFirst(got).allSatisfy { $0 == 0xAA })
  }

  @Test("What is written at an offset leaves the rest as it was")
  func writing() throws {
    let path = folder.file("content")
    try writeBytes([UInt8](repeating: 1, count: 100), to: path)
    try writeBytes([UInt8](repeating: 2, count: 10), to: path, at: 95)
    try writeBytes([], to: path, at: 500)
    let expected = [UInt8](repeating: 1, count: 95) + [UInt8](repeating: 2, count: 10)
    #expect(try readFile(path) == expected)
  }

  @Test("A write that finds no space says so, with the byte where it stopped")
  func deviceFull() throws {
    let error = #expect(throws: StrobeError.self) {
      try writeBytes([1, 2, 3], to: "/dev/full", at: 4096)
    }
    #expect(
      error?.reason
        == .system(errno: ENOSPC, call: "write", object: "/dev/full at byte 4096"))
  }

  @Test("A read of a directory fails with its name and byte")
  func directory() throws {
    let error = #expect(throws: StrobeError.self) { try read(folder.path, at: 7, count: 10) }
    #expect(
      error?.reason == .system(errno: EISDIR, call: "read", object: "\(folder.path) at byte 7"))
  }

  @Test("A missing file is named")
  func missing() throws {
    let path = folder.file("missing")
    let error = #expect(throws: StrobeError.self) { try readFile(path) }
    #expect(error?.reason == .system(errno: ENOENT, call: "open", object: path))
    #expect(error?.message == "\(path): open: No such file or directory")
  }

  @Test("No descriptor is inherited by a program that is started")
  func closedOnExec() throws {
    let file = try FileDescriptor(opening: "/dev/null", O_RDONLY)
    #expect(fcntl(file.number, F_GETFD) & FD_CLOEXEC != 0)
  }

  @Test("The file is closed when its owner goes out of scope")
  func closed() throws {
    let path = folder.file("kept")
    try writeBytes([1], to: path)
    func open() throws -> Int32 {
      let file = try FileDescriptor(opening: path, O_RDONLY)
      #expect(resolvedPath("/proc/self/fd/\(file.number)") == path)
      return file.number
    }
    // The number may be another test's by now, the file isn't.
    let number = try open()
    #expect(resolvedPath("/proc/self/fd/\(number)") != path)
  }

  @Test("A file grows and shrinks to a size, with zeros where it grew")
  func truncation() throws {
    let path = folder.file("content")
    try writeBytes([1, 2, 3], to: path)
    let file = try FileDescriptor(opening: path, O_RDWR)
    try file.truncate(to: 5)
    #expect(try readFile(path) == [1, 2, 3, 0, 0])
    try file.truncate(to: 1)
    #expect(try readFile(path) == [1])
    #expect(try file.facts().size == 1)
  }
}

@Suite("Facts of files")
struct FileFactsTests {
  private let folder = TemporaryDirectory()

  @Test("Kinds are told apart")
  func kinds() throws {
    let path = folder.file("content")
    try writeBytes([1, 2, 3], to: path)
    let file = try #require(try FileFacts(path: path))
    #expect(file.isRegularFile && !file.isDirectory && !file.isBlockDevice)
    #expect(file.size == 3 && file.birth_seconds > 0)
    let directory = try #require(try FileFacts(path: folder.path))
    #expect(directory.isDirectory && !directory.isRegularFile)
    let device = try #require(try FileFacts(path: "/dev/null"))
    #expect(!device.isRegularFile && !device.isDirectory && !device.isBlockDevice)
    #expect(device.specialDevice == DeviceNumber(major: 1, minor: 3))
    #expect(device.specialDevice.description == "1:3")
  }

  @Test("What isn't there is nil: no name, or a file where a directory would have to be")
  func missing() throws {
    try writeBytes([], to: folder.file("plain"))
    #expect(try FileFacts(path: folder.file("missing")) == nil)
    #expect(try FileFacts(path: folder.file("plain/inner")) == nil)
    #expect(try FileFacts(path: "") == nil)
  }

  @Test("What can't be looked at is an error, not nil")
  func failure() throws {
    let error = #expect(throws: StrobeError.self) {
      try FileFacts(path: folder.file(String(repeating: "n", count: 300)))
    }
    #expect(error?.errno == ENAMETOOLONG)
  }

  @Test("Two names of one file are the same file; a copy is not")
  func sameFile() throws {
    let names = ["one", "two", "three"].map(folder.file)
    try writeBytes([1], to: names[0])
    try Shell.run("ln", names[0], names[1])
    try Shell.run("cp", names[0], names[2])
    let facts = try names.map { try #require(try FileFacts(path: $0)) }
    #expect(facts[0].isSameFile(as: facts[1]))
    #expect(!facts[0].isSameFile(as: facts[2]))
  }
}
