/// Whether what the parent's checkpoint counts is all that happened to a disk.
///
/// libvirt gives the bitmaps of all disks the name of the checkpoint, and a bitmap goes where its image goes: one that was
/// copied over another disk's while the domain was off brings its own along. Nor does it tell what the image lies over by
/// now. As long as the domain runs, neither can happen.
struct CheckpointProof {
  /// Whether the domain has run all the time since the parent.
  let isSameRun: Bool
  /// The disks of the checkpoint.
  let counted: Set<String>

  /// - Returns: nil when it is.
  func doubt(of disk: LibvirtDisk) -> String? {
    if counted.isEmpty { return "libvirt has no checkpoint of the parent point any more" }
    guard counted.contains(disk.target) else {
      return "the checkpoint of the parent point doesn't count for it"
    }
    if isSameRun { return nil }
    let restart =
      "the domain was started anew since the parent point, or its QEMU can't be seen from here"
    if counted.count > 1 {
      return "\(restart), and libvirt's records don't tell the disks' images apart"
    }
    return disk.liesOverAnother
      ? "\(restart), and libvirt's record doesn't tell what the image lies over" : nil
  }
}
