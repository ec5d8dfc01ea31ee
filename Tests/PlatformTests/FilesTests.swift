import CLinux
import Glibc
import Platform
import TestSupport
import Testing

@Suite("Whole files")
struct FilesTests {
  private let folder = TemporaryDirectory()

  @Test("A file is read whole, whatever its size", arguments: [0, 1, 4095, 4096, 4097, 100_000])
  func whole(size: Int) throws {
    var generator = SeededGenerator(seed: UInt64(size))
    let content = generator.bytes(size)
    try writeBytes(content, to: folder.file("content"))
    #expect(try readFile(folder.file("content")) == content)
    #expect(try readFile(folder.file("content"), limit: size) == content)
  }

  @Test("A file larger than its limit is damage")
  func limit() throws {
    try writeBytes([UInt8](repeating: 1, count: 10), to: folder.file("content"))
    let error = #expect(throws: StrobeError.self) { try readFile(folder.file("content"), limit: 9) }
    #expect(error?.isDamage == true)
  }

  @Test("A file of procfs, whose size is said to be 0, is read to its end")
  func procfs() throws {
    // Programs that come and go are listed there: it may change between two readings.
    let agree = try (0..<20).contains { _ in
      try readFile("/proc/kallsyms").count == Shell.run("cat", "/proc/kallsyms").utf8.count
    }
    #expect(agree)
  }

  @Test("A file without a known size is limited as well")
  func endless() throws {
    let error = #expect(throws: StrobeError.self) { try readFile("/dev/zero", limit: 100_000) }
    #expect(error?.isDamage == true)
  }

  @Test("A small text loses the white space at its end, only there")
  func text() throws {
    try writeBytes(Array(" a b \n\t \r\n".utf8), to: folder.file("text"))
    #expect(readText(folder.file("text")) == " a b")
    #expect(readText(folder.file("missing")) == nil)
  }

  @Test("The names in a directory are all there, without the two dots")
  func names() throws {
    let names = (0..<300).map { "name-\($0)" } + [".hidden", "with blank", "ümläut"]
    for name in names { try writeBytes([], to: folder.file(name)) }
    #expect(try namesInDirectory(folder.path).sorted() == names.sorted())
    let error = #expect(throws: StrobeError.self) { try namesInDirectory(folder.file("missing")) }
    #expect(error?.errno == ENOENT)
  }

  @Test("Removing a name twice is no error")
  func removal() throws {
    try writeBytes([1], to: folder.file("content"))
    try removeFile(folder.file("content"))
    try removeFile(folder.file("content"))
    #expect(try FileFacts(path: folder.file("content")) == nil)
  }
}

@Suite("Paths")
struct PathTests {
  private let folder = TemporaryDirectory()

  @Test(
    "The directory above",
    arguments: [("/a/b", "/a"), ("/a", "/"), ("/", "/"), ("a", "."), ("a/b/c", "a/b"), ("", ".")])
  func parent(path: String, expected: String) {
    #expect(parentDirectory(path) == expected)
  }

  @Test(
    "The last name",
    arguments: [("/a/b", "b"), ("/a", "a"), ("a", "a"), ("/a/b/", "b"), ("", ""), ("/", "/")])
  func last(path: String, expected: String) {
    #expect(lastComponent(path) == expected)
  }

  @Test("A relative path is made absolute, an absolute one stays")
  func absolute() {
    #expect(absolutePath("/x/../y") == "/x/../y")
    #expect(absolutePath("x") == (resolvedPath(".") ?? "") + "/x")
  }

  @Test("Links are followed; a link to nothing leads nowhere")
  func resolved() throws {
    try writeBytes([], to: folder.file("real"))
    try Shell.run("ln", "-s", "real", folder.file("link"))
    try Shell.run("ln", "-s", "missing", folder.file("broken"))
    #expect(resolvedPath(folder.file("link")) == folder.file("real"))
    #expect(resolvedPath(folder.file("broken")) == nil)
  }
}

@Suite("Making directories")
struct DirectoryTests {
  private let folder = TemporaryDirectory()

  @Test("All that are missing are made, for the owner alone", arguments: ["a", "a/b/c/d", "a/b/"])
  func nested(path: String) throws {
    try makeDirectories(folder.file(path))
    let facts = try #require(try FileFacts(path: folder.file(path)))
    #expect(facts.isDirectory)
    #expect(facts.mode & 0o777 == 0o700)
    try makeDirectories(folder.file(path))
  }

  @Test("A file in the way is an error and stays", arguments: ["plain", "plain/inner"])
  func fileInTheWay(path: String) throws {
    try writeBytes([1], to: folder.file("plain"))
    let error = #expect(throws: StrobeError.self) { try makeDirectories(folder.file(path)) }
    #expect(error?.errno == ENOTDIR)
    #expect(try readFile(folder.file("plain")) == [1])
  }

  @Test("Many at once make the same directories without disturbing each other")
  func concurrent() throws {
    let path = folder.file("a/b/c/d/e")
    try onWorkers(8, stop: CancellationFlag()) { _ throws(StrobeError) in try makeDirectories(path)
    }
    #expect(try FileFacts(path: path)?.isDirectory == true)
  }
}

@Suite("Publishing a file")
struct PublishTests {
  private let folder = TemporaryDirectory()

  @Test("A file gets a name that is free, and loses its temporary one")
  func free() throws {
    try writeBytes([1, 2], to: folder.file("temporary"))
    try publish(folder.file("temporary"), as: folder.file("final"))
    #expect(try readFile(folder.file("final")) == [1, 2])
    #expect(try namesInDirectory(folder.path) == ["final"])
  }

  @Test(
    "A name that is taken is never overwritten", arguments: ["file", "directory", "broken link"])
  func taken(kind: String) throws {
    let final = folder.file("final")
    switch kind {
    case "file": try writeBytes([9], to: final)
    case "directory": try makeDirectories(final)
    default: try Shell.run("ln", "-s", "nowhere", final)
    }
    try writeBytes([1], to: folder.file("temporary"))
    let error = #expect(throws: StrobeError.self) {
      try publish(folder.file("temporary"), as: final)
    }
    #expect(error?.errno == EEXIST)
    #expect(try readFile(folder.file("temporary")) == [1])
    if kind == "file" { #expect(try readFile(final) == [9]) }
    if kind == "broken link" { #expect(resolvedPath(folder.file("nowhere")) == nil) }
  }

  @Test("Of many that want one name, exactly one gets it")
  func race() throws {
    for index in 0..<8 { try writeBytes([UInt8(index)], to: folder.file("temporary-\(index)")) }
    let winners = Winners()
    let (path, folder) = (folder.file("final"), folder)
    try onWorkers(8, stop: CancellationFlag()) { index throws(StrobeError) in
      do throws(StrobeError) {
        try publish(folder.file("temporary-\(index)"), as: path)
        winners.add(index)
      } catch {
        guard error.errno == EEXIST else { throw error }
      }
    }
    #expect(winners.all.count == 1)
    #expect(try readFile(path).map(Int.init) == winners.all)
  }
}
