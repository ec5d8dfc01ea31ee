import FuzzedParsers
import Platform
import Testing

/// Every input that a fuzzer ever stumbled over, and the seeds, without the fuzzer: a parser that fails on one
/// stops the test run. `scripts/fuzz` looks for new ones.
@Suite("Corpus of the fuzzers")
struct CorpusTests {
  static let folder = parentDirectory(parentDirectory(#filePath)) + "/Fuzzing/Corpus"

  @Test("Every input of the corpus is parsed or refused", arguments: FuzzedParser.all.map(\.name))
  func inputs(name: String) throws {
    let parser = try #require(FuzzedParser.all.first { $0.name == name })
    let inputs = try namesInDirectory("\(Self.folder)/\(name)").sorted()
    #expect(!inputs.isEmpty)
    for input in inputs { parser.run(try readFile("\(Self.folder)/\(name)/\(input)")) }
  }

  @Test("Every folder of the corpus belongs to a parser")
  func folders() throws {
    #expect(Set(try namesInDirectory(Self.folder)) == Set(FuzzedParser.all.map(\.name)))
  }

  @Test("An input that is cut off is parsed or refused", arguments: FuzzedParser.all.map(\.name))
  func prefixes(name: String) throws {
    let parser = try #require(FuzzedParser.all.first { $0.name == name })
    for input in try namesInDirectory("\(Self.folder)/\(name)").sorted() {
      let bytes = try readFile("\(Self.folder)/\(name)/\(input)")
      for end in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 40)) {
        parser.run(Array(bytes[..<end]))
      }
    }
  }
}
