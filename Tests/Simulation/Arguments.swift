import Glibc

/// What `simulate` was asked for.
struct Arguments {
  struct Wrong: Error { let text: String }

  private var count = 100
  private var first: UInt64 = 1
  private var jobs = 1
  private var isSelfCheck = false
  private var isSingle = false
  private var settings = Simulation.Settings()

  init(_ words: some Collection<String>) throws(Wrong) {
    var words = Array(words)[...]
    while let word = words.popFirst() {
      switch word {
      case "--seeds": count = try Self.number(word, &words)
      case "--from": first = UInt64(try Self.number(word, &words))
      case "--seed":
        first = UInt64(try Self.number(word, &words))
        isSingle = true
      case "--jobs": jobs = try Self.number(word, &words)
      case "--small": settings.isSmall = true
      case "--self-check": isSelfCheck = true
      case "--sabotage":
        guard let name = words.popFirst(), let sabotage = Sabotage(rawValue: name) else {
          throw Wrong(
            text: "--sabotage is one of "
              + Sabotage.allCases.map(\.rawValue).joined(separator: ", ")
          )
        }
        settings.sabotage = sabotage
      default: throw Wrong(text: "unknown argument \(word)")
      }
    }
    guard count > 0, 1...64 ~= jobs else { throw Wrong(text: "nothing to run") }
  }

  private static func number(
    _ word: String, _ words: inout ArraySlice<String>
  ) throws(Wrong) -> Int {
    guard let text = words.popFirst(), let number = Int(text), number >= 0 else {
      throw Wrong(text: "\(word) needs a number")
    }
    return number
  }

  /// - Returns: the exit status.
  func run() -> Int32 {
    if isSelfCheck { return SelfCheck(settings: settings, first: first).run() ? 0 : 1 }
    var settings = settings
    settings.echoes = isSingle
    let seeds = isSingle ? first...first : first...(first + UInt64(count) - 1)
    return Runner(seeds: seeds, jobs: isSingle ? 1 : jobs, settings: settings).run() ? 0 : 1
  }
}

func complain(_ text: String) {
  let line = Array((text + "\n").utf8)
  _ = unsafe line.withUnsafeBytes { unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
