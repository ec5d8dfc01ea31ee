import CLibvirt
import Glibc
package import Platform

// What comes before a pass: the traces of killed ones are cleared up, and all that may fail is tried.

extension LibvirtDomain {
  package func begin(_ request: GuestPassRequest) throws(StrobeError) -> any GuestPass {
    try request.stop.check()
    let chosen = try chosen(request)
    let object = "domain \(name)"
    try about(object) { () throws(LibvirtError) in try endOwnJob(request) }
    if try about(object, { () throws(LibvirtError) in try handle.hasJob() }) {
      throw StrobeError(
        .busy, "another job runs on domain \(name)",
        advice: "`virsh -c '\(handle.connection.uri)' domjobinfo \(name)` says which; try again "
          + "when it is over")
    }
    let folder = absolutePath(request.scratchFolder)
    try LibvirtScratch.removeLeftovers(in: folder, prefix: request.prefix)
    let checkpoints = LibvirtCheckpoints(domain: handle, prefix: request.prefix)
    let parent = request.parent.map(request.name(countingFrom:))
    let counted = try about(object) { () throws(LibvirtError) in
      // Younger ones are of passes that came to nothing, older ones of a commit that was cut short.
      try checkpoints.deleteAll(except: parent)
      guard let parent else { return Set<String>() }
      let counted = try checkpoints.disks(of: parent)
      if !counted.isEmpty { return counted }
      return try checkpoints.recall(
        parent, of: chosen.filter { $0.recordObstacle == nil }.map(\.target))
    }
    try request.stop.check()
    let scratch = try LibvirtScratch(request, owner: owner)
    do throws(StrobeError) {
      try checkSpace(scratch, chosen)
      let proof = CheckpointProof(
        isSameRun: request.parentRun != nil && request.parentRun == description.run,
        counted: counted)
      return try LibvirtPass(
        request, domain: self, disks: chosen, proof: proof, scratch: scratch,
        checkpoints: checkpoints)
    } catch {
      try? scratch.remove()
      throw error
    }
  }

  private func chosen(_ request: GuestPassRequest) throws(StrobeError) -> [LibvirtDisk] {
    try request.disks.map { (name) throws(StrobeError) in
      guard let disk = disks.first(where: { $0.name == name }),
        let image = images.first(where: { $0.target == name })
      else {
        throw StrobeError(
          .notFound, "domain \(self.name) has no disk \(name)",
          advice: "it has \(disks.map(\.name).joined(separator: ", "))")
      }
      if let obstacle = disk.obstacle {
        throw StrobeError(
          .refused, "disk \(name) of domain \(self.name) can't be taken: \(obstacle)")
      }
      return image
    }
  }

  /// A job whose socket is in a scratch folder of this collection: its pass is dead, the collection is locked.
  private func endOwnJob(_ request: GuestPassRequest) throws(LibvirtError) {
    guard let backup = try handle.backup(),
      let socket = BackupDocuments.socket(of: backup),
      lastComponent(parentDirectory(socket)).hasPrefix(request.prefix)
    else { return }
    // Whatever stopped the guest since its pass died, it was most likely this job.
    try LibvirtJob(handle, name: name, socket: socket, mayResume: true).end()
    try? LibvirtScratch.removeLeftovers(
      in: parentDirectory(parentDirectory(socket)), prefix: request.prefix)
  }

  /// When the scratch space runs out, the guest stops until the job has been ended.
  private func checkSpace(_ scratch: LibvirtScratch, _ chosen: [LibvirtDisk]) throws(StrobeError) {
    let needed = disks.filter { disk in chosen.contains { $0.target == disk.name } }
      .reduce(0) { $0 + LibvirtScratch.space(for: $1.size) }
    let free = try scratch.freeSpace()
    guard free < needed else { return }
    throw StrobeError(
      .refused,
      "the scratch space at \(parentDirectory(scratch.path)) has \(free >> 20) MiB free of the "
        + "\(needed >> 20) MiB that the guest could overwrite during the pass",
      advice: "free space there or name a larger place with --scratch: the guest would be stopped "
        + "when it runs out")
  }
}
