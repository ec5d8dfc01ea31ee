import Engine
import Glibc
import Platform
import SimulationCalls

/// An operation that runs in a process of its own, which may be crashed or stopped in the middle.
///
/// The child is a fork of the simulation, which has a single thread between operations: it needs no program
/// to be started and no world to be built again.
struct Child {
  enum State {
    case stopped
    case ended(Ending)
  }

  private let process: pid_t
  private let output: Int32

  /// - Parameter seed: the child's random numbers: its ids must not be those that its parent makes.
  init(_ operation: Operation, in world: World, _ plan: FaultPlan, seed: UInt64) {
    var ends: [Int32] = [-1, -1]
    precondition(unsafe simulation_pipe(&ends) == 0)
    process = simulation_fork()
    precondition(process >= 0, "fork: \(errno)")
    if process == 0 {
      close(ends[0])
      Self.run(operation, world, plan, seed, output: ends[1])
    }
    close(ends[1])
    output = ends[0]
  }

  private static func run(
    _ operation: Operation, _ world: World, _ plan: FaultPlan, _ seed: UInt64, output: Int32
  ) -> Never {
    Faults.seedRandom(seed)
    Faults.arm(plan)
    var text: String
    do {
      switch try world.run(operation) {
      case .returned(let result): text = "R" + result
      case .failed(let failure): text = "F" + failure.kind + "\u{1D}" + failure.text
      case .killed: text = "K"
      }
    } catch {
      text = "?\(error)"
    }
    Faults.end()
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes[done...].withUnsafeBytes {
        unsafe write(output, $0.baseAddress, $0.count)
      }
      if count <= 0 { _exit(3) }
      done += count
    }
    _exit(0)
  }

  /// Waits until the child stops or ends.
  func wait() throws -> State {
    var status: Int32 = 0
    while unsafe waitpid(process, &status, WUNTRACED) < 0 {
      guard errno == EINTR else { throw Finding("waitpid: \(errno)") }
    }
    if status & 0xFF == 0x7F { return .stopped }
    let text = readAll()
    close(output)
    if status & 0x7F != 0 {
      let signal = status & 0x7F
      if signal == SIGKILL { return .ended(.killed) }
      throw Finding("the operation's process died of signal \(signal)")
    }
    let code = status >> 8 & 0xFF
    if code == SIMULATION_CRASH_STATUS { return .ended(.killed) }
    guard code == 0, let kind = text.first else {
      throw Finding("the operation's process ended with status \(code)")
    }
    let rest = String(text.dropFirst())
    switch kind {
    case "R": return .ended(.returned(rest))
    case "F":
      let parts = rest.split(separator: "\u{1D}", maxSplits: 1).map(String.init)
      return .ended(.failed(Failure(kind: parts[0], text: parts.count > 1 ? parts[1] : "")))
    default: throw Finding("the operation's process: \(rest)")
    }
  }

  func goOn() { kill(process, SIGCONT) }

  func end() { kill(process, SIGKILL) }

  private func readAll() -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = unsafe read(output, &buffer, buffer.count)
      if count <= 0 { break }
      bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
