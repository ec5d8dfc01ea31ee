import CLibvirt
import Glibc
import Platform

/// The checkpoints of one collection in one domain: which disks count from which point.
///
/// Each is a bitmap of its name in every disk's qcow2 image, which counts until it is deleted, whatever
/// checkpoints were made after it. So deleting a younger one loses nothing of an older one's.
struct LibvirtCheckpoints {
  let domain: LibvirtHandle
  /// What their names begin with; no other is ever touched.
  let prefix: String

  /// - Returns: the disks that `name` counts for; empty when there is no such checkpoint.
  func disks(of name: String) throws(LibvirtError) -> Set<String> {
    do throws(LibvirtError) {
      return Set(Self.counted(by: try domain.checkpoint(name)))
    } catch {
      if error.code == clibvirt_ERR_NO_DOMAIN_CHECKPOINT { return [] }
      throw error
    }
  }

  private static func counted(by document: String) -> [String] {
    guard let checkpoint = try? XMLElement(parsing: document) else { return [] }
    let disks = checkpoint.child("disks")?.all("disk") ?? []
    return disks.filter { $0["checkpoint"] == "bitmap" }.compactMap { $0["name"] }
  }

  /// Tells libvirt again of a checkpoint that it has forgotten, with its definition, or because somebody had it to:
  /// the bitmaps may be there still, and count.
  ///
  /// - Parameter disks: those that the checkpoint may have counted for.
  /// - Returns: those whose bitmap libvirt has found well. Others' bitmaps of the name are removed.
  func recall(_ name: String, of disks: [String]) throws(LibvirtError) -> Set<String> {
    let time = "\(Glibc.time(nil))"
    func redefine(_ disks: [String], isChecked: Bool) -> Bool {
      let document = BackupDocuments.checkpoint(name, counting: disks, time: time)
      do throws(LibvirtError) {
        try domain.redefineCheckpoint(document, isChecked: isChecked)
        return true
      } catch { return false }
    }
    let well = disks.filter { redefine([$0], isChecked: true) }
    for disk in disks where !well.contains(disk) && redefine([disk], isChecked: false) {
      try? domain.deleteCheckpoint(name)
    }
    if !well.isEmpty && redefine(well, isChecked: true) { return Set(well) }
    try forget(name)
    return []
  }

  /// Deletes all but one.
  ///
  /// - Throws: the first failure, when the others are deleted.
  func deleteAll(except kept: String?) throws(LibvirtError) {
    var failure: LibvirtError?
    for name in try domain.checkpointNames() where name.hasPrefix(prefix) && name != kept {
      do throws(LibvirtError) {
        try delete(name)
      } catch {
        failure = failure ?? error
      }
    }
    if let failure { throw failure }
  }

  /// Deletes a checkpoint and its bitmaps, as many of them as there are.
  func delete(_ name: String) throws(LibvirtError) {
    do throws(LibvirtError) {
      try domain.deleteCheckpoint(name)
    } catch {
      if error.code == clibvirt_ERR_NO_DOMAIN_CHECKPOINT { return }
      // Not because of what is in the images: it would lose bitmaps that are well.
      if try domain.state() == .off { throw error }
      if try domain.hasJob() { throw error }
      try deleteByDisk(name)
    }
  }

  /// libvirt deletes no bitmap as long as one of the checkpoint's is missing: it is told of one after the other.
  private func deleteByDisk(_ name: String) throws(LibvirtError) {
    let document = try domain.checkpoint(name)
    let time = (try? XMLElement(parsing: document))?.child("creationTime")?.text
    for disk in Self.counted(by: document) {
      try? domain.redefineCheckpoint(
        BackupDocuments.checkpoint(name, counting: [disk], time: time ?? "0"))
      try? domain.deleteCheckpoint(name)
    }
    try forget(name)
  }

  /// The disks keep the bitmaps.
  private func forget(_ name: String) throws(LibvirtError) {
    do throws(LibvirtError) {
      try domain.deleteCheckpoint(name, forget: true)
    } catch {
      if error.code != clibvirt_ERR_NO_DOMAIN_CHECKPOINT { throw error }
    }
  }
}
