import CFuzzer
import FuzzedParsers
import Glibc

// strobe-fuzz PARSER [LIBFUZZER-OPTION...] [CORPUS...]; `scripts/fuzz` calls it. `strobe-fuzz --list` names
// the parsers.

nonisolated(unsafe) private var chosen: FuzzedParser?

private func run() -> Int32 {
  let words = CommandLine.arguments.dropFirst()
  if words.first == "--list" {
    for parser in FuzzedParser.all { print(parser.name) }
    return 0
  }
  guard let parser = FuzzedParser.all.first(where: { $0.name == words.first }) else {
    print("usage: strobe-fuzz PARSER [LIBFUZZER-OPTION...] [CORPUS...], or --list")
    return 2
  }
  unsafe chosen = parser
  // libFuzzer starts itself again by these words, so the parser's name stays behind what it ignores.
  var arguments: [UnsafeMutablePointer<CChar>?] =
    unsafe ([CommandLine.arguments[0]]
    + words.dropFirst()).map { unsafe strdup($0) }
  unsafe arguments.append(nil)
  return unsafe arguments.withUnsafeMutableBufferPointer { list in
    var count = Int32(list.count - 1)
    var start = list.baseAddress
    return unsafe LLVMFuzzerRunDriver(&count, &start) { data, size in
      unsafe chosen!.run(Array(UnsafeBufferPointer(start: data, count: size)))
      return 0
    }
  }
}

exit(run())
