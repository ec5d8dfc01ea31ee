import Glibc
import Platform

/// What the program is asked to do.
struct Arguments {
  static let usage = """
    Usage: crash-states [--states N] [--seed S] [--variants K] [--few F] [--processes P]
           crash-states --operation NAME [--seed S] [--variants K] [--few F] [--share N]
                        [--prefix P] [--variant V] [--sabotage files|folders|order] [--without STEP] [--each-fsync]

    Crashes operations of a repository at every step that they take, and opens what is left. Without --operation all
    of them are crashed, with seed after seed, until N states were checked.

      --variants K   states of each prefix of the steps: the first five are fixed, the others random
      --few F        only so many of them, others for each prefix
      --share N      one state in N is worked on with: snapshot, delete, gc, verify, restore
      --prefix P, --variant V   only this state; the steps are printed
      --sabotage X   the steps without the fsyncs of files, or of folders, or with them after the renames: must end with 1
      --without STEP the same, but only that step is left out
      --each-fsync   leaves out each fsync in turn, and lists those that nothing misses

    Exit status: 0 everything held, 1 a state was broken, 2 wrong usage.
    """

  var operation: Operation?
  var seed: UInt64 = 1
  var variants = 40
  var few: Int?
  var states = 10_000
  var processes = processorCount()
  var share = 16
  var prefix: Int?
  var variant: Int?
  var sabotage: Sabotage?
  var without: Int?
  var leavesOutEach = false

  /// - Returns: nil when they make no sense.
  init?(_ words: [String]) {
    var rest = words[...]
    while let name = rest.popFirst() {
      if name == "--each-fsync" {
        leavesOutEach = true
        continue
      }
      guard let text = rest.popFirst() else { return nil }
      if name == "--operation" {
        operation = Operation.all.first { $0.name == text }
        if operation == nil { return nil }
        continue
      }
      if name == "--sabotage" {
        sabotage = Sabotage(rawValue: text)
        if sabotage == nil { return nil }
        continue
      }
      guard let number = Int(text), number >= 0 else { return nil }
      switch name {
      case "--seed": seed = UInt64(number)
      case "--variants": variants = max(1, number)
      case "--few": few = max(1, number)
      case "--states": states = number
      case "--processes": processes = max(1, number)
      case "--share": share = max(1, number)
      case "--prefix": prefix = number
      case "--variant": variant = number
      case "--without": without = number
      default: return nil
      }
    }
    if let variant { variants = variant + 1 }
  }
}

/// - Returns: the exit status.
func run(_ words: [String]) -> Int32 {
  if words.contains("--help") || words.contains("-h") {
    print(Arguments.usage)
    return 0
  }
  guard let arguments = Arguments(words) else {
    print(Arguments.usage)
    return 2
  }
  guard let operation = arguments.operation else {
    let campaign = Campaign(
      Operation.all, seed: arguments.seed, variants: arguments.variants, few: arguments.few,
      wanted: arguments.states)
    return campaign.run(processes: arguments.processes) ? 0 : 1
  }
  var crashes = Crashes(
    operation: operation, seed: arguments.seed, variants: arguments.variants,
    share: arguments.share, sabotage: arguments.sabotage, onlyPrefix: arguments.prefix,
    onlyVariant: arguments.variant)
  crashes.few = arguments.few
  crashes.without = arguments.without
  do {
    if arguments.leavesOutEach {
      try crashes.leaveOutEach()
      return 0
    }
    let tally = try crashes.run()
    print(tally.line)
    return tally.broken == 0 ? 0 : 1
  } catch {
    print("\(operation.name), seed \(arguments.seed): \(error)")
    return 3
  }
}
