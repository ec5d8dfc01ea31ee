import Platform

/// One pass over disks of a guest of QEMU.
///
/// ```
///   begin   overlays, filters (not yet in the disks' way), the NBD server
///   cut     the new bitmaps start, the parent's stop; filters or jobs get into the disks' way
///   open    what shows the instant, exported with the parent's bitmaps
///   close   TakeDown
///   commit  all bitmaps of the collection but the new ones go        giveBack  BitmapLedger.settle
/// ```
/// Where a step fails, what it did is undone by `close` and `giveBack`, or by the next pass.
final class QEMUPass: GuestPass {
  let machine: QEMUMachine
  let request: GuestPassRequest
  let names: PassNames
  /// In the order of the request.
  let disks: [QEMUDisk]
  let selected: QEMUWay
  let folder: ScratchFolder
  private(set) var warnings: [String] = []
  /// By disk: why the parent's bitmap says nothing.
  private(set) var doubts: [String: String] = [:]
  /// Until it is closed.
  private var lock: GuestLock?
  private var hasServer = false
  private var hasBegun = false
  private var isClosed = false
  /// After the cut.
  var isCut = false
  var areOpen = false
  /// The first thing that broke the instant.
  private var fault: String?

  init(
    _ machine: QEMUMachine, _ request: GuestPassRequest, _ names: PassNames, _ lock: GuestLock
  ) throws(StrobeError) {
    self.machine = machine
    self.lock = lock
    self.request = request
    self.names = names
    disks = try Self.disks(of: request, machine)
    selected = try WayChoice(
      features: machine.features, disks: disks, request: request, monitor: machine.monitor
    ).way()
    folder = try ScratchFolder(names, in: request.scratchFolder, for: machine.monitor)
    do throws(StrobeError) {
      try prepare()
    } catch {
      throw afterUndoing(error)
    }
    hasBegun = true
  }

  /// It could not begin.
  ///
  /// - Returns: the error, with what could not be taken out of QEMU again.
  private func afterUndoing(_ error: StrobeError) -> StrobeError {
    var result = error
    do throws(StrobeError) {
      if try machine.reconnect() { try takeDown() }
    } catch let left {
      let text =
        "what the pass made in QEMU was not removed: \(left.message); the next snapshot clears it up"
      result = error.explained(error.message, advice: error.advice.map { "\($0); \(text)" } ?? text)
    }
    try? folder.remove()
    return result
  }

  deinit {
    // What failed to begin was ended by who began it.
    if hasBegun && !isClosed { LivePasses.end(names) }
  }

  var way: String { selected.name }
  var needsPause: Bool { selected == .filter && disks.count > 1 }
  var usesFilters: Bool { selected == .filter || selected == .reopen }
  var monitor: QMPConnection { machine.monitor }

  /// The bitmap that counts from the parent; nil when there is no sound one.
  func parentBitmap(of disk: QEMUDisk) -> String? {
    guard doubts[disk.name] == nil else { return nil }
    return request.parent.map { machine.ledger(request).name(disk, countingFrom: $0) }
  }
  /// The bitmap that counts from this point.
  func newBitmap(of disk: QEMUDisk) -> String {
    machine.ledger(request).name(disk, countingFrom: request.point)
  }

  private static func disks(of request: GuestPassRequest, _ machine: QEMUMachine)
    throws(StrobeError) -> [QEMUDisk]
  {
    var disks: [QEMUDisk] = []
    for name in request.disks {
      guard let disk = machine.found.first(where: { $0.name == name }) else {
        throw StrobeError(
          .notFound, "the guest at \(machine.monitor.path) has no writable disk \(name)",
          advice: "it has " + machine.found.map(\.name).joined(separator: ", "))
      }
      if let obstacle = disk.disk.obstacle {
        throw StrobeError(.refused, "disk \(name) of the guest can't be taken: \(obstacle)")
      }
      disks.append(disk)
    }
    guard !disks.isEmpty else {
      throw StrobeError(.notFound, "the guest at \(machine.monitor.path) has no writable disk")
    }
    return disks
  }

  private func prepare() throws(StrobeError) {
    monitor.forgetEvents()
    let graph = try BlockGraph(reading: monitor)
    try refuseForeignJobs(graph.jobs)
    if let parent = request.parent {
      let ledger = machine.ledger(request)
      for disk in disks { doubts[disk.name] = ledger.doubt(of: disk, parent: parent, graph) }
    }
    for (index, disk) in disks.enumerated() {
      try request.stop.check()
      switch selected {
      case .reopen, .filter: try addFilter(index, disk)
      case .job: try addOverlay(index, disk, over: disk.attached)
      }
    }
    if selected == .job(yields: false) {
      warnings.append(
        "the guest stops until the end of the pass if others take the free space of "
          + request.scratchFolder)
    }
    try startServer(graph)
  }

  private func startServer(_ graph: BlockGraph) throws(StrobeError) {
    let arguments: [String: JSONValue] = [
      "addr": ["type": "unix", "data": ["path": .string(folder.socket)]], "max-connections": 0,
    ]
    switch try monitor.ask("nbd-server-start", arguments) {
    case .success: hasServer = true
    case .failure(let error):
      guard error.text.contains("already running") else {
        throw error.failure(of: "nbd-server-start", at: monitor.path)
      }
      let others = graph.exports.filter { $0.kind == "nbd" }.map { $0.id }
      throw StrobeError(
        .busy,
        "QEMU's NBD server is in use"
          + (others.isEmpty ? "" : ": it exports \(others.joined(separator: ", "))"),
        advice: "QEMU has one only: end the other backup, or nbd-server-stop what is left of it")
    }
  }

  /// A job of somebody else's has a filter of its own over a disk, which QEMU doesn't show: given another filter, the disk would
  /// write past it, and a mirror's target would lack what the guest wrote since.
  private func refuseForeignJobs(_ jobs: [BlockJob]) throws(StrobeError) {
    let ended = ["concluded", "null", "undefined"]
    let foreign = jobs.first {
      PassNames(reading: $0.id) == nil && !ended.contains($0.status) && $0.isOfBlocks
    }
    guard let foreign else { return }
    throw StrobeError(
      .busy, "QEMU runs a job over the guest's disks, \(foreign.kind) \(foreign.id.prefix(80))",
      advice: "wait until it has ended, or end it (block-job-cancel)")
  }

  func cut() throws(StrobeError) {
    try refuseForeignJobs(BlockGraph.jobs(monitor))
    switch selected {
    case .reopen: try cutByReopening()
    case .filter: try cutByExchange()
    case .job(let yields): try cutByJobs(yields: yields)
    }
    isCut = true
  }

  func open() throws(StrobeError) -> [GuestExport] {
    precondition(isCut)
    if usesFilters { try addViews() }
    if selected == .reopen || !needsPause && selected == .filter { try stopParentBitmaps() }
    var exports: [GuestExport] = []
    for (index, disk) in disks.enumerated() {
      let bitmap = parentBitmap(of: disk)
      try addExport(index, disk, with: bitmap)
      exports.append(
        GuestExport(
          disk: disk.name, uri: uri(of: index),
          bitmap: bitmap.map { "qemu:dirty-bitmap:\($0)" }, doubt: doubts[disk.name]))
    }
    areOpen = true
    return exports
  }

  private func addExport(_ index: Int, _ disk: QEMUDisk, with bitmap: String?)
    throws(StrobeError)
  {
    let name = names.name(.export, index)
    var arguments: [String: JSONValue] = [
      "type": "nbd", "id": .string(name), "name": .string(name), "writable": false,
      "node-name": .string(names.name(selected == .reopen ? .access : .overlay, index)),
    ]
    if let bitmap {
      // Before QEMU 7.1 the name alone, which QEMU looks for in what lies behind the overlay.
      let reference: JSONValue =
        machine.features.hasFilters
        ? ["node": .string(disk.node), "name": .string(bitmap)] : .string(bitmap)
      arguments["bitmaps"] = [reference]
    }
    try monitor.execute("block-export-add", arguments)
  }

  private func uri(of index: Int) -> String {
    let unreserved = Set("-._~/".utf8)
    var path = ""
    for byte in folder.socket.utf8 {
      let character = Character(Unicode.Scalar(byte))
      if unreserved.contains(byte)
        || character.isASCII && (character.isLetter || character.isNumber)
      {
        path.append(character)
      } else {
        path += "%" + hexadecimal([byte]).uppercased()
      }
    }
    return "nbd+unix:///\(names.name(.export, index))?socket=\(path)"
  }

  func failure() -> String? {
    if fault == nil && isCut && !isClosed { fault = findFault() }
    return fault
  }

  func close() throws(StrobeError) {
    if isClosed { return }
    if try machine.reconnect() { try takeDown() }
    try folder.remove()
    isClosed = true
    LivePasses.end(names)
    lock = nil
  }

  private func takeDown() throws(StrobeError) {
    monitor.stop = nil
    var work = TakeDown(monitor: monitor, features: machine.features) { $0 == self.names }
    // The answer may have been given up: it is ours if it listens where we wanted it.
    work.sparesServer = { [hasServer, folder] in
      !hasServer && (try? FileFacts(path: folder.socket)) == nil
    }
    try work.run()
  }

  func commit(discredited: Set<String>) throws(StrobeError) {
    monitor.stop = nil
    let ledger = machine.ledger(request)
    let graph = try machine.look()
    var removals: [JSONValue] = []
    for disk in machine.found {
      let keeps =
        request.countsChanges && request.disks.contains(disk.name)
        && !discredited.contains(disk.name)
      for bitmap in ledger.bitmaps(of: disk.node, graph)
      where bitmap.name != newBitmap(of: disk) || !keeps {
        removals.append(BitmapLedger.action("remove", disk.node, bitmap.name))
      }
    }
    try monitor.transaction(removals)
  }

  func giveBack() throws(StrobeError) {
    guard try machine.reconnect() else { return }
    monitor.stop = nil
    let graph = try machine.look()
    // A disk that was taken away has taken its bitmaps with it.
    let left = disks.filter { graph.nodes[$0.node] != nil }
    let ledger = machine.ledger(request)
    if let parent = request.parent { return try ledger.settle(left, parent: parent, graph) }
    try monitor.transaction(
      left.flatMap { disk in
        ledger.bitmaps(of: disk.node, graph).filter { $0.name == newBitmap(of: disk) }
          .map { BitmapLedger.action("remove", disk.node, $0.name) }
      })
  }
}
