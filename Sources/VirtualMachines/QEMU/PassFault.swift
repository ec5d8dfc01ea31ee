import Platform

// Whether what a pass reads is still the instant of its cut.

extension QEMUPass {
  /// - Returns: what happened, for a message; nil: all is well.
  func findFault() -> String? {
    do throws(StrobeError) {
      try monitor.collectEvents()
      if let text = eventFault() { return text }
      if let text = try sizeFault() { return text }
      if let text = try jobFault() { return text }
      if areOpen, let text = try exportFault() { return text }
      if areOpen, let text = try viewFault() { return text }
      // What QEMU answered since brought the events before it along.
      return eventFault()
    } catch {
      return "\(error)"
    }
  }

  private func eventFault() -> String? {
    for event in monitor.events {
      switch event.name {
      case "SHUTDOWN": return "the guest ended"
      case "DEVICE_DELETED":
        let path = event.data["path"]?.text ?? ""
        if let disk = disks.first(where: { isPart($0.device, of: path) }) {
          return "disk \(disk.name) was taken away from the guest"
        }
      default: break
      }
    }
    return nil
  }

  private func isPart(_ device: String?, of path: String) -> Bool {
    guard let device, !path.isEmpty else { return false }
    return device == path || device.hasPrefix(path + "/")
  }

  /// Below a raw node QEMU lets a disk shrink without asking the filter.
  private func sizeFault() throws(StrobeError) -> String? {
    let nodes = try BlockGraph.nodes(monitor)
    for disk in disks {
      guard let node = nodes[disk.attached] else {
        return "disk \(disk.name) was taken away from the guest"
      }
      if node.size != disk.disk.size {
        return "disk \(disk.name) got another size: \(node.size) bytes instead of \(disk.disk.size)"
      }
    }
    return nil
  }

  private func jobFault() throws(StrobeError) -> String? {
    guard case .job = selected else { return nil }
    if try machine.status() == "io-error" {
      return "a write of the guest failed, and QEMU stopped it: the scratch space ran out"
    }
    let jobs = try BlockGraph.jobs(monitor)
    for (index, disk) in disks.enumerated() {
      let name = names.name(.job, index)
      guard let job = jobs.first(where: { $0.id == name }) else {
        return "somebody else ended the job that keeps disk \(disk.name)"
      }
      if job.status != "running" {
        return "the job that keeps disk \(disk.name) is \(job.status)"
          + (job.error.map { ": \($0)" } ?? "")
      }
    }
    return nil
  }

  private func exportFault() throws(StrobeError) -> String? {
    let exports = try BlockGraph.exports(monitor)
    for (index, disk) in disks.enumerated() {
      let name = names.name(.export, index)
      guard let export = exports.first(where: { $0.id == name }), !export.isEnding else {
        return "somebody else ended the export of disk \(disk.name)"
      }
    }
    return nil
  }

  /// QEMU says nowhere that a filter gave up: only reading its view tells.
  private func viewFault() throws(StrobeError) -> String? {
    guard usesFilters else { return nil }
    for (index, disk) in disks.enumerated() where disk.disk.size >= ExportProbe.size {
      let code = try ExportProbe.read(names.name(.sentinel, index), at: folder.socket)
      if code != 0 {
        return "the scratch space in \(request.scratchFolder) ran out: "
          + "disk \(disk.name) can't be read as it was any more"
      }
    }
    return nil
  }
}
