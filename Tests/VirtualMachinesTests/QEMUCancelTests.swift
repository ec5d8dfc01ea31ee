import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import VirtualMachines

/// Stands between a pass and QEMU's monitor. The answer to one command comes late: whoever waits for it is cancelled
/// meanwhile.
private final class LateMonitor: @unchecked Sendable {
  // Sendable: its socket is used by the server's one thread.
  private let socket: String
  private let late: Int
  private let stop: CancellationFlag
  private let names = Mutex<[String]>([])
  private var qemu: LineSocket?

  /// The commands so far, without the one that opens a connection.
  var commands: [String] { names.withLock { $0 } }

  /// - Parameter late: the number of the command, from 0.
  init(_ socket: String, late: Int, _ stop: CancellationFlag) {
    (self.socket, self.late, self.stop) = (socket, late, stop)
  }

  func greet(_ client: LineServer.Client) {
    qemu = nil
    qemu = try? LineSocket(connecting: socket, milliseconds: 60_000)
    if let line = try? qemu?.line(until: monotonicMilliseconds() + 60_000) {
      client.send(line + Array("\n".utf8))
    }
  }

  /// QEMU's monitor has one client. Called when the server has stopped.
  func letGo() { qemu = nil }

  func relay(_ line: [UInt8], _ client: LineServer.Client) {
    guard let command = JSONValue(decoding: line), let name = command["execute"]?.text else {
      return
    }
    let number = names.withLock { names in
      if name != "qmp_capabilities" { names.append(name) }
      return name == "qmp_capabilities" ? -1 : names.count - 1
    }
    try? qemu?.send(line + Array("\n".utf8), milliseconds: 60_000)
    var answers: [UInt8] = []
    while let answer = try? qemu?.line(until: monotonicMilliseconds() + 60_000) {
      answers += answer + Array("\n".utf8)
      if JSONValue(decoding: answer)?["id"] == command["id"] { break }
    }
    if number == late {
      stop.cancel()
      usleep(150_000)
    }
    client.send(answers)
  }
}

@Suite(
  "Passes that are cancelled", .serialized, .enabled(if: TestGuest.isPossible, TestGuest.comment))
struct QEMUCancelTests {
  /// A pass as the engine makes it, but for the reading.
  ///
  /// - Returns: whether it came to its end.
  private func run(_ guest: TestGuest, _ way: WayCase, _ socket: String, _ stop: CancellationFlag)
    throws -> Bool
  {
    do {
      let machine = try QEMUMachine(
        socket: socket, milliseconds: 60_000, trustsViews: way.readsViews, stop: stop)
      let pass = try machine.begin(
        request(guest, point: 2, parent: 1, mayPause: way.mayPause, stop: stop))
      do {
        try cut(pass, guest)
        _ = try pass.open()
        _ = pass.failure()
        try stop.check()
        try pass.close()
        // The point is not committed after all.
        try pass.giveBack()
        return true
      } catch {
        try pass.close()
        try pass.giveBack()
        throw error
      }
    } catch let error as StrobeError where error.reason == .cancelled {
      return false
    }
  }

  private func firstPoint(_ guest: TestGuest, _ way: WayCase) throws -> [Content] {
    let pass = try guest.machine(trustsViews: way.readsViews).begin(
      request(guest, point: 1, mayPause: way.mayPause))
    try cut(pass, guest)
    let instant = guest.content
    try pass.close()
    try pass.commit(discredited: [])
    return instant
  }

  private func expectIncrement(_ guest: TestGuest, _ way: WayCase, _ instant: [Content]) throws {
    let machine = try guest.machine(trustsViews: way.readsViews)
    let pass = try machine.begin(request(guest, point: 3, parent: 1, mayPause: way.mayPause))
    try cut(pass, guest)
    for (index, export) in try pass.open().enumerated() {
      #expect(
        blocks(try dirtyRanges(export)) == guest.content[index].changed(since: instant[index]))
    }
    try pass.close()
    try pass.giveBack()
  }

  @Test(
    "At whatever command: nothing is left in QEMU, and what changed since the parent is known",
    arguments: [
      WayCase(.machine, [.raw, .filteredImage], "reopen"),
      WayCase(.machine, [.image, .drive], "copy-before-write"),
      WayCase(.daemon, [.image, .raw], "backup-job"),
    ])
  func everyCommand(way: WayCase) throws {
    let guest = try way.guest()
    let administrator = try #require(guest.administrator)
    #expect(try run(guest, way, guest.socket, CancellationFlag()))
    let instant = try firstPoint(guest, way)
    // All of them, over some runs.
    let step = Machine.runsLong ? 1 : 8
    var number = Int.random(in: 0..<step)
    while true {
      try guest.write(UInt8(number + 1), to: number % 2, at: (number % 60) << 16)
      let stop = CancellationFlag()
      let monitor = LateMonitor(guest.socket, late: number, stop)
      let server = try LineServer(
        guest.folder.file("late-\(number)"), greet: { monitor.greet($0) },
        answer: { monitor.relay($0, $1) })
      let isWhole = try run(guest, way, server.path, stop)
      server.stop()
      monitor.letGo()
      let commands = monitor.commands
      let command = commands.count > number ? commands[number] : "none"
      #expect(try leftovers(guest) == [], "\(number): \(command)")
      #expect(try bitmaps(guest) == guest.names.map { _ in "1" }, "\(number): \(command)")
      if case .success = try administrator.ask("nbd-server-stop") {
        Issue.record("\(number): \(command): the server is left")
      }
      if guest.kind == .machine {
        #expect(try administrator.execute("query-status")["running"] == true)
      }
      try expectIncrement(guest, way, instant)
      if isWhole { break }
      number += step
    }
    #expect(number > 20)
  }
}
