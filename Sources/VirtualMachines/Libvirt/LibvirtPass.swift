import CLibvirt
import Platform

/// One pass over disks of a domain: a backup job that is read through NBD, and a checkpoint.
final class LibvirtPass: GuestPass {
  let way = "libvirt"
  let needsPause = false
  private(set) var warnings: [String] = []

  private let request: GuestPassRequest
  private let domain: LibvirtDomain
  private let scratch: LibvirtScratch
  private let checkpoints: LibvirtCheckpoints
  private let job: LibvirtJob
  private let others: [String]
  private var disks: [BackupDocuments.Disk]
  /// Why a disk has to be read whole although there is a parent.
  private var doubts: [String: String] = [:]

  init(
    _ request: GuestPassRequest, domain: LibvirtDomain, disks images: [LibvirtDisk],
    proof: CheckpointProof, scratch: LibvirtScratch, checkpoints: LibvirtCheckpoints
  ) throws(StrobeError) {
    self.request = request
    self.domain = domain
    self.scratch = scratch
    self.checkpoints = checkpoints
    let (handle, name) = (domain.handle, domain.name)
    job = try about("domain \(name)") { () throws(LibvirtError) in
      try LibvirtJob(handle, name: name, socket: scratch.socket)
    }
    others = domain.images.map(\.target).filter { !request.disks.contains($0) }
    disks = []
    for image in images {
      let obstacle = image.recordObstacle
      let isIncremental = request.parent != nil && proof.doubt(of: image) == nil
      if request.parent != nil && !isIncremental {
        doubts[image.target] =
          obstacle ?? proof.doubt(of: image)
      } else if let obstacle, request.countsChanges {
        warnings.append("disk \(image.target) will be read whole each time: \(obstacle)")
      }
      disks.append(
        BackupDocuments.Disk(
          target: image.target, isIncremental: isIncremental,
          counts: request.countsChanges && obstacle == nil,
          scratch: scratch.image(of: image.target)))
    }
  }

  /// Nobody is left who could ask it anything; the next pass clears up.
  deinit { job.stopWatching() }

  private var documents: BackupDocuments {
    BackupDocuments(
      socket: scratch.socket, disks: disks, others: others,
      parent: request.parent.map(request.name(countingFrom:)),
      checkpoint: request.name(countingFrom: request.point))
  }

  func cut() throws(StrobeError) {
    // libvirt would wait for it for half a minute, and the guest's file systems may be frozen.
    let (handle, name) = (domain.handle, domain.name)
    if try about("domain \(name)", { () throws(LibvirtError) in try handle.hasJob() }) {
      throw StrobeError(.busy, "another job has begun on domain \(name)")
    }
    while true {
      do throws(LibvirtError) {
        try job.begin(documents)
        job.watch()
        return
      } catch {
        guard distrust(error) else { throw explained(error) }
      }
    }
  }

  /// Takes disks whole whose record libvirt has found broken.
  ///
  /// - Returns: whether there was one.
  private func distrust(_ error: LibvirtError) -> Bool {
    guard
      [clibvirt_ERR_CHECKPOINT_INCONSISTENT, clibvirt_ERR_NO_DOMAIN_CHECKPOINT].contains(error.code)
    else { return false }
    let incremental = disks.indices.filter { disks[$0].isIncremental }
    // libvirt names the first that it finds, in English or not.
    let named = incremental.filter { error.message.contains("'\(disks[$0].target)'") }
    for index in named.isEmpty ? incremental : named {
      disks[index].isIncremental = false
      doubts[disks[index].target] =
        "the record of changes since the parent point is lost, as after a crash of QEMU "
        + "(\(error.message))"
    }
    return !incremental.isEmpty
  }

  private func explained(_ error: LibvirtError) -> StrobeError {
    error.about(
      "domain \(domain.name)",
      advice: error.code == clibvirt_ERR_OPERATION_TIMEOUT
        ? nil
        : "if AppArmor or SELinux keeps QEMU from making files in "
          + "\(parentDirectory(scratch.path)), name another scratch folder with --scratch")
  }

  func open() throws(StrobeError) -> [GuestExport] {
    disks.map { disk in
      GuestExport(
        disk: disk.target,
        uri: "nbd+unix:///\(disk.target.escapedForURI)?socket=\(scratch.socket.escapedForURI)",
        bitmap: disk.isIncremental ? "qemu:dirty-bitmap:\(BackupDocuments.bitmap)" : nil,
        doubt: doubts[disk.target])
    }
  }

  func failure() -> String? { job.failure() }

  func close() throws(StrobeError) {
    let job = job
    try about("domain \(domain.name)") { () throws(LibvirtError) in try job.end() }
    try scratch.remove()
  }

  func commit(discredited: Set<String>) throws(StrobeError) {
    // A checkpoint is the domain's: it can't count for some of its disks only from here on.
    let kept =
      request.countsChanges && discredited.isEmpty
      ? request.name(countingFrom: request.point) : nil
    if kept == nil, request.countsChanges {
      warnings.append(
        "the next point reads all disks of domain \(domain.name) whole: the record of changes of "
          + "\(discredited.sorted().joined(separator: ", ")) missed some, and libvirt keeps one for all"
      )
    }
    let (checkpoints, parent) = (checkpoints, documents.parent)
    let counting = disks.filter(\.counts).map(\.target)
    try about("domain \(domain.name)") { () throws(LibvirtError) in
      // Forgotten meanwhile, it would leave its bitmaps behind.
      if let parent, try checkpoints.disks(of: parent).isEmpty {
        _ = try? checkpoints.recall(parent, of: counting)
      }
      try checkpoints.deleteAll(except: kept)
    }
  }

  func giveBack() throws(StrobeError) {
    let (checkpoints, name) = (checkpoints, request.name(countingFrom: request.point))
    try about("domain \(domain.name)") { () throws(LibvirtError) in try checkpoints.delete(name) }
  }
}
