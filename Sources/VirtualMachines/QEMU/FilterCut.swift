import Platform

// Two ways with QEMU's copy-before-write filter: what the guest is about to overwrite is copied first, to an
// image. When that fails, the filter gives up the snapshot, and the guest's write goes on.
//
// - `reopen` reads the filter's own view (`snapshot-access`). Before QEMU 8.0 that is wrong: a read that begins
//   where something was copied and ends where nothing was gives what the guest wrote since (`hbitmap_status`,
//   seen in 7.2.22). So this way isn't taken there.
// - `copy-before-write` reads the image, which lies over the disk and shows it where nothing was copied. That
//   the filter gave up can't be seen there: for that there is a view, which can't be read any more then. Within
//   one block of 64 KiB it is right in every version.
// - An image over the disk isn't for `reopen`: QEMU 7.2.22 ends with a failed assertion (`parent_quiesce_counter`).

extension QEMUPass {
  /// Makes a filter that nothing goes through yet.
  func addFilter(_ index: Int, _ disk: QEMUDisk) throws(StrobeError) {
    let readsViews = selected == .reopen
    let node = readsViews ? disk.reopened ?? disk.attached : disk.attached
    try addOverlay(index, disk, over: readsViews ? nil : node)
    try monitor.execute(
      "blockdev-add",
      [
        "driver": "copy-before-write", "node-name": .string(names.name(.filter, index)),
        "file": .string(node), "target": .string(names.name(.overlay, index)),
        "on-cbw-error": "break-snapshot", "cbw-timeout": 30,
        // What the guest discards goes on being discarded.
        "discard": "unmap",
      ])
  }

  /// All disks' raw nodes get their filter below them in one command, without a standstill.
  ///
  /// The parent's bitmaps stop only in ``open()``: what is written between is in both, which is safe.
  func cutByReopening() throws(StrobeError) {
    let graph = try BlockGraph(reading: monitor)
    var options: [JSONValue] = []
    for (index, disk) in disks.enumerated() {
      guard let node = graph.nodes[disk.attached] else {
        throw StrobeError(.notFound, "disk \(disk.name) was taken away from the guest")
      }
      options.append(node.reopenOptions(above: names.name(.filter, index)))
    }
    try startBitmaps()
    try monitor.execute("blockdev-reopen", ["options": .array(options)])
  }

  /// Each device gets its filter instead of its node. Between the first and the last one the guest must not
  /// write; if one fails, those before it are given back at once, and their bitmaps.
  func cutByExchange() throws(StrobeError) {
    monitor.forgetEvents(named: "RESUME")
    try checkStandstill()
    do throws(StrobeError) {
      try startBitmaps(with: needsPause ? parentStops : [])
      for (index, disk) in disks.enumerated() {
        try monitor.execute(
          "qom-set", TakeDown.drive(of: disk.device ?? "", names.name(.filter, index)))
      }
      try checkStandstill()
    } catch {
      try? undoExchange()
      throw error
    }
  }

  /// Whoever holds the guest may have let it go on meanwhile, for it stood still too long.
  private func checkStandstill() throws(StrobeError) {
    guard needsPause else { return }
    let runs = try monitor.execute("query-status")["running"]?.flag != false
    guard !runs, !monitor.events.contains(where: { $0.name == "RESUME" }) else {
      throw StrobeError(
        .refused, "the guest at \(monitor.path) runs, but has to be paused for the cut")
    }
  }

  private func undoExchange() throws(StrobeError) {
    monitor.stop = nil
    let graph = try BlockGraph(reading: monitor)
    for (index, disk) in disks.enumerated() {
      // QEMU 7.2 ends with a failed assertion when a device is given the node that it has. A device that was taken away
      // needs nothing.
      let filter = names.name(.filter, index)
      guard let device = disk.device, graph.devices.contains(where: { $0.node == filter }) else {
        continue
      }
      _ = try monitor.ask("qom-set", TakeDown.drive(of: device, disk.attached))
    }
    try giveBack()
  }

  /// What shows the instant until the filter gives up.
  func addViews() throws(StrobeError) {
    for index in disks.indices {
      try monitor.execute(
        "blockdev-add",
        [
          "driver": "snapshot-access", "node-name": .string(names.name(.access, index)),
          "file": .string(names.name(.filter, index)),
        ])
      let name = names.name(.sentinel, index)
      try monitor.execute(
        "block-export-add",
        [
          "type": "nbd", "id": .string(name), "name": .string(name), "writable": false,
          "node-name": .string(names.name(.access, index)),
        ])
    }
  }
}
