import Platform

// The way with a job of QEMU for each disk: it copies what the guest is about to overwrite to an image that
// lies over the disk. It needs nothing of the disks' nodes.

extension QEMUPass {
  /// Makes an empty image that shows the node; nil: zeros.
  func addOverlay(_ index: Int, _ disk: QEMUDisk, over node: String?) throws(StrobeError) {
    let overlay = names.name(.overlay, index)
    let file = try folder.makeFile(overlay) { (file) throws(StrobeError) in
      try ScratchImage.makeOverlay(file, size: disk.disk.size)
    }
    try monitor.execute(
      "blockdev-add",
      [
        "driver": "qcow2", "node-name": .string(overlay),
        "backing": node.map { .string($0) } ?? .null,
        "file": ["driver": "file", "filename": .string(file)],
      ])
    try removeFile(file)
  }

  /// One transaction: jobs and bitmaps of all disks start and stop at one instant.
  ///
  /// - Parameter yields: whether a job that runs out of space ends. Otherwise QEMU stops the guest; then there
  ///   was room for all of the disks when the pass began.
  func cutByJobs(yields: Bool) throws(StrobeError) {
    let jobs = disks.indices.map { index -> JSONValue in
      var job: [String: JSONValue] = [
        "job-id": .string(names.name(.job, index)), "device": .string(disks[index].attached),
        "target": .string(names.name(.overlay, index)), "sync": "none",
        "filter-node-name": .string(names.name(.filter, index)),
        "auto-dismiss": false, "auto-finalize": true,
      ]
      if yields { job["on-cbw-error"] = "break-snapshot" }
      return ["type": "blockdev-backup", "data": .object(job)]
    }
    try startBitmaps(with: parentStops + jobs)
  }
}
