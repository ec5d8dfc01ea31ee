import Glibc
import SimulationCalls

/// Runs many seeds in a few processes, and tells what came of them.
///
/// Each worker is a fork: an engine that traps takes its worker with it, and the seed is known.
final class Runner {
  private let seeds: ClosedRange<UInt64>
  private let jobs: Int
  private let settings: Simulation.Settings
  private var workers: [Worker] = []
  private var done = 0
  private var commands = 0
  private var failed: [UInt64] = []
  private(set) var digests: [UInt64: String] = [:]
  /// Seeds whose sabotage struck, and those of them that noticed.
  private(set) var struck: Set<UInt64> = []
  private let isQuiet: Bool
  private let start = monotonic()

  /// Seconds that one seed may take before it counts as hanging.
  private static let patience: UInt32 = 180

  init(seeds: ClosedRange<UInt64>, jobs: Int, settings: Simulation.Settings, isQuiet: Bool = false)
  {
    self.seeds = seeds
    self.jobs = jobs
    self.settings = settings
    self.isQuiet = isQuiet
  }

  var failedSeeds: [UInt64] { failed }

  /// - Returns: whether all seeds held.
  func run() -> Bool {
    for index in 0..<jobs { start(from: seeds.lowerBound + UInt64(index)) }
    while !workers.isEmpty {
      var polled = workers.map { pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0) }
      _ = unsafe poll(&polled, nfds_t(polled.count), -1)
      for (index, state) in polled.enumerated().reversed() where state.revents != 0 {
        if !read(from: index) { ended(workers.remove(at: index)) }
      }
    }
    if !isQuiet {
      print(
        "simulate: \(done) seeds, \(commands) commands, \(failed.count) failed, \(Int(monotonic() - start)) s"
      )
      if !failed.isEmpty { print("simulate: failed: \(failed.sorted())") }
    }
    return failed.isEmpty
  }

  private func start(from seed: UInt64) {
    guard seed <= seeds.upperBound else { return }
    var ends: [Int32] = [-1, -1]
    fflush(nil)
    precondition(unsafe simulation_pipe(&ends) == 0)
    let process = simulation_fork()
    precondition(process >= 0)
    if process == 0 { work(from: seed, output: ends[1]) }
    close(ends[1])
    workers.append(Worker(process: process, output: ends[0], seed: seed))
  }

  private func work(from first: UInt64, output: Int32) -> Never {
    var seed = first
    while seed <= seeds.upperBound {
      say(output, "S \(seed)")
      alarm(Self.patience)
      do {
        let outcome = try Simulation(seed: seed, settings: settings).run()
        say(
          output,
          "D \(seed) \(outcome.commandCount) \(String(outcome.digest, radix: 16))"
            + (outcome.wasSabotaged ? " sabotaged" : ""))
      } catch let error as Simulation.Failed {
        for line in error.log.suffix(isQuiet || settings.echoes ? 0 : 200) {
          say(output, "L   " + line)
        }
        say(output, "F \(seed) \(error.reason)")
      } catch {
        say(output, "F \(seed) \(error)")
      }
      fflush(nil)
      seed += UInt64(jobs)
    }
    _exit(0)
  }

  private func say(_ output: Int32, _ text: String) {
    let line = Array((text.split(separator: "\n").joined(separator: " | ") + "\n").utf8)
    var done = 0
    while done < line.count {
      let count = unsafe line[done...].withUnsafeBytes {
        unsafe write(output, $0.baseAddress, $0.count)
      }
      if count <= 0 { _exit(4) }
      done += count
    }
  }

  /// - Returns: false when the worker has said its last word.
  private func read(from index: Int) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = unsafe Glibc.read(workers[index].output, &buffer, buffer.count)
    guard count > 0 else { return false }
    workers[index].pending += buffer[..<count]
    while let end = workers[index].pending.firstIndex(of: 10) {
      let line = String(decoding: workers[index].pending[..<end], as: UTF8.self)
      workers[index].pending.removeSubrange(...end)
      hear(line, index)
    }
    return true
  }

  private func hear(_ line: String, _ index: Int) {
    let words = line.split(separator: " ")
    switch words[0] {
    case "S": workers[index].seed = UInt64(words[1])!
    case "D":
      let seed = UInt64(words[1])!
      digests[seed] = String(words[3])
      if words.count > 4 { struck.insert(seed) }
      commands += Int(words[2])!
      workers[index].isBetween = true
      count(seed)
    case "F":
      let seed = UInt64(words[1])!
      report(seed, words.dropFirst(2).joined(separator: " "))
      workers[index].isBetween = true
      count(seed)
    default: print(line.dropFirst(2))
    }
    if words[0] == "S" { workers[index].isBetween = false }
  }

  private func report(_ seed: UInt64, _ reason: String) {
    failed.append(seed)
    guard !isQuiet else { return }
    print("simulate: seed \(seed) FAILED: \(reason)")
    print(
      "  again: scripts/simulate --seed \(seed)" + (settings.isSmall ? " --small" : "")
        + (settings.sabotage.map { " --sabotage \($0.rawValue)" } ?? ""))
    fflush(nil)
  }

  private func count(_ seed: UInt64) {
    done += 1
    if isQuiet { return }
    if settings.echoes, let digest = digests[seed] {
      print("simulate: seed \(seed) held, digest \(digest)")
    } else if done % 100 == 0 {
      let seconds = monotonic() - start
      print(
        "simulate: \(done) of \(seeds.count) seeds, \(commands) commands, \(failed.count) failed,"
          + " \(Int(seconds)) s")
      fflush(nil)
    }
  }

  /// A worker that went in the middle of a seed took it down.
  private func ended(_ worker: Worker) {
    close(worker.output)
    var status: Int32 = 0
    unsafe waitpid(worker.process, &status, 0)
    guard !worker.isBetween || status != 0 else { return }
    let signal = status & 0x7F
    report(
      worker.seed,
      signal == SIGALRM
        ? "no end after \(Self.patience) s" : "the engine's process died: status \(status)")
    count(worker.seed)
    removeTree(World.folder(worker.seed, process: worker.process))
    start(from: worker.seed + UInt64(jobs))
  }
}

/// A process that runs seeds.
private struct Worker {
  let process: pid_t
  let output: Int32
  var seed: UInt64
  /// Whether the seed is over and the next not begun.
  var isBetween = false
  var pending: [UInt8] = []
}

/// Seconds; never the simulated clock.
func monotonic() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
