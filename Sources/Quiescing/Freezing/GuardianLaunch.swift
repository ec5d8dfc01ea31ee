import CLinux
import Glibc
import Platform

/// Starts a guardian and waits until it is ready.
enum GuardianLaunch {
  /// Starting locks a program into memory; on a machine under load that takes its time.
  private static let startMilliseconds = 30_000

  /// - Parameters:
  ///   - executable: nil: this process's own program, also when its file was replaced since.
  ///   - places: descriptors of mount points and connections to guests, in the order of the configuration.
  ///   - records: descriptors of the locked records, in the same order.
  /// - Returns: the guardian, the engine's end of the socket, and what it could not do for its own safety.
  static func start(
    _ executable: String?, _ configuration: GuardianConfiguration, places: [Int32],
    records: [Int32]
  ) throws(StrobeError) -> (process: ChildProcess, socket: Int32, warnings: [String]) {
    let program = executable ?? "/proc/self/exe"
    let message = try configuration.encoded()
    var ends: [Int32] = [-1, -1]
    try systemCall("socketpair", "guardian") { unsafe clinux_socket_pair(&ends) }
    let (ours, theirs) = (ends[0], ends[1])
    let process: ChildProcess
    do throws(StrobeError) {
      defer { close(theirs) }
      _ = try unsafe message.withBytes { (bytes) throws(StrobeError) in
        try systemCall("send", "guardian") {
          unsafe send(ours, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
      }
      let null = try FileDescriptor(opening: "/dev/null", O_RDWR)
      process = try ChildProcess(
        program, arguments: [GuardianProcess.argument], environment: environment,
        descriptors: [null.number, null.number, null.number, theirs] + places + records,
        newSession: true)
    } catch {
      close(ours)
      throw error.explained("the guardian can't be started: \(error.message)")
    }
    do throws(StrobeError) {
      return (process, ours, try awaitReady(ours, program))
    } catch {
      process.signal(SIGKILL)
      while !process.isOver { usleep(1000) }
      _ = process.collect()
      close(ours)
      throw error
    }
  }

  private static func awaitReady(_ socket: Int32, _ program: String) throws(StrobeError) -> [String]
  {
    let deadline = Clock.after(milliseconds: startMilliseconds)
    while Clock.now() < deadline {
      var request = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      _ = unsafe poll(&request, 1, Clock.pollTimeout(until: deadline))
      switch GuardianMessage.receive(from: socket) {
      case .message(let message) where message.kind == .ready: return warnings(message)
      case .nothing: continue
      default:
        throw StrobeError(
          .system(errno: ECHILD, call: "start", object: program),
          "the guardian ended before it was ready: \(program) \(GuardianProcess.argument)",
          advice: "nothing was frozen; the guardian has to be the strobe program itself")
      }
    }
    throw StrobeError(
      .system(errno: ETIMEDOUT, call: "start", object: program),
      "the guardian was not ready after \(startMilliseconds / 1000) s: \(program)",
      advice: "nothing was frozen; the guardian has to be the strobe program itself")
  }

  private static func warnings(_ ready: GuardianMessage) -> [String] {
    var warnings: [String] = []
    if ready.code != 0 {
      warnings.append("the guardian's memory is not locked: \(errorText(ready.code))")
    }
    return warnings
  }

  /// The engine's own: the dynamic linker may need it.
  private static var environment: [String] {
    var entries: [String] = []
    var next = unsafe environ
    while let entry = unsafe next.pointee {
      entries.append(unsafe String(cString: entry))
      unsafe next += 1
    }
    return entries
  }
}

/// What strerror(3) says.
func errorText(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }
