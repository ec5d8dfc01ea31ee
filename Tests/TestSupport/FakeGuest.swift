import Glibc
import Platform
package import Synchronization

/// The commands of QMP and of the guest agent, as far as the fakes understand them.
private struct Command {
  let name: String
  /// As it was written: a number or a string in quotation marks.
  let id: String?
  /// Whether there was something before it that is no command.
  let isAfterNoise: Bool

  init?(_ line: [UInt8]) {
    isAfterNoise = line.contains(0xff)
    let part = line.lastIndex(of: 0xff).map { line[($0 + 1)...] } ?? line[...]
    let text = String(decoding: part, as: UTF8.self)
    // Half a command and another one are none.
    guard text.hasPrefix("{"), text.hasSuffix("}"), text.ranges(of: "\"execute\"").count == 1,
      let name = Self.value("execute", in: text)
    else {
      return nil
    }
    self.name = String(name.dropFirst().dropLast())
    id = Self.value("id", in: text)
  }

  private static func value(_ key: String, in text: String) -> String? {
    guard let range = text.firstRange(of: "\"\(key)\":") else { return nil }
    let rest = text[range.upperBound...].drop { $0 == " " }
    return String(rest.prefix { $0 != "," && $0 != "}" })
  }
}

/// A guest agent that freezes nothing: it keeps count.
package final class FakeAgent: Sendable {
  package struct State: Sendable {
    package var isFrozen = false
    /// How many file systems a freeze freezes.
    package var fileSystems = 2
    /// How many are frozen now.
    package var frozen = 0
    package var commands: [String] = []
    /// While it is set, nothing is answered.
    package var isHung = false
    /// Commands that it doesn't know.
    package var disabled: Set<String> = []
    /// What it does at a command instead of answering; nil: answers.
    package var instead: (@Sendable (_ command: String, _ client: LineServer.Client) -> Bool)?
  }

  package let state: Mutex<State>
  private let server: Mutex<LineServer?>
  package let path: String

  package init(_ path: String, _ state: State = State()) throws {
    self.path = path
    self.state = Mutex(state)
    server = Mutex(nil)
    try listen()
  }

  deinit { stop() }

  /// Listens (again).
  package func listen() throws {
    let server = try LineServer(path) { [weak self] line, client in self?.answer(line, client) }
    self.server.withLock { $0 = server }
  }

  /// Ends it, whatever it holds frozen.
  package func stop() {
    state.withLock { $0.isHung = false }
    server.withLock { $0 }?.stop()
  }

  package var commands: [String] { state.withLock { $0.commands } }
  package var isFrozen: Bool { state.withLock { $0.isFrozen } }

  private func answer(_ line: [UInt8], _ client: LineServer.Client) {
    while state.withLock({ $0.isHung }) { usleep(1000) }
    let noise = #"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"# + "\n"
    guard let command = Command(line) else { return client.send(noise) }
    if command.isAfterNoise { client.send(noise) }
    state.withLock { $0.commands.append(command.name) }
    if let instead = state.withLock({ $0.instead }), instead(command.name, client) { return }
    if command.name == "guest-sync-delimited" { client.send([0xff]) }
    client.send(state.withLock { Self.reply(to: command, &$0) } + "\n")
  }

  private static func reply(to command: Command, _ state: inout State) -> String {
    func refused(_ why: String) -> String {
      #"{"error": {"class": "CommandNotFound", "desc": "\#(why)"}}"#
    }
    if state.disabled.contains(command.name) { return refused("has been disabled") }
    switch command.name {
    case "guest-sync-delimited": return #"{"return": \#(command.id ?? "0")}"#
    case "guest-ping": return #"{"return": {}}"#
    case "guest-fsfreeze-status":
      return #"{"return": "\#(state.isFrozen ? "frozen" : "thawed")"}"#
    case "guest-fsfreeze-freeze":
      if state.isFrozen { return refused("the agent is in frozen state") }
      (state.isFrozen, state.frozen) = (state.fileSystems > 0, state.fileSystems)
      return #"{"return": \#(state.frozen)}"#
    case "guest-fsfreeze-thaw":
      let count = state.frozen
      (state.isFrozen, state.frozen) = (false, 0)
      return #"{"return": \#(count)}"#
    default: return refused("is unknown")
    }
  }
}

/// A QMP monitor of a guest that doesn't exist.
package final class FakeMonitor: Sendable {
  package struct State: Sendable {
    package var isRunning = true
    package var commands: [String] = []
    package var isHung = false
    /// How long it takes to stop.
    package var stopMilliseconds = 0
    /// Told every command before it is carried out.
    package var observer: (@Sendable (_ command: String) -> Void)?
    /// Whether it hangs up, once, instead of answering.
    package var hangsUp = false
  }

  package let state: Mutex<State>
  private let server: Mutex<LineServer?>
  package let path: String

  package init(_ path: String, _ state: State = State()) throws {
    self.path = path
    self.state = Mutex(state)
    server = Mutex(nil)
    let greeting = #"{"QMP": {"version": {}, "capabilities": []}}"# + "\n"
    let server = try LineServer(
      path, greet: { $0.send(greeting) },
      answer: { [weak self] line, client in self?.answer(line, client) })
    self.server.withLock { $0 = server }
  }

  deinit { stop() }

  package func stop() {
    state.withLock { $0.isHung = false }
    server.withLock { $0 }?.stop()
  }

  package var commands: [String] { state.withLock { $0.commands } }
  package var isRunning: Bool { state.withLock { $0.isRunning } }

  private func answer(_ line: [UInt8], _ client: LineServer.Client) {
    while state.withLock({ $0.isHung }) { usleep(1000) }
    let noise = #"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"# + "\n"
    guard let command = Command(line) else { return client.send(noise) }
    if command.isAfterNoise { client.send(noise) }
    state.withLock { $0.observer }?(command.name)
    let hangsUp = state.withLock { state in
      defer { state.hangsUp = false }
      return state.hangsUp
    }
    if hangsUp { return client.end() }
    if command.name == "stop" {
      usleep(UInt32(state.withLock { $0.stopMilliseconds } * 1000))
    }
    client.send(state.withLock { Self.reply(to: command, &$0) })
  }

  /// The events come before the reply, as from QEMU, and only when something changes.
  private static func reply(to command: Command, _ state: inout State) -> String {
    state.commands.append(command.name)
    var text = ""
    var value = "{}"
    switch command.name {
    case "stop":
      if state.isRunning { text += #"{"event": "STOP"}"# + "\r\n" }
      state.isRunning = false
    case "cont":
      if !state.isRunning { text += #"{"event": "RESUME"}"# + "\r\n" }
      state.isRunning = true
    case "query-status":
      value =
        #"{"status": "\#(state.isRunning ? "running" : "paused")", "running": \#(state.isRunning)}"#
    default: break
    }
    let id = command.id.map { #", "id": \#($0)"# } ?? ""
    return text + #"{"return": \#(value)\#(id)}"# + "\r\n"
  }
}
