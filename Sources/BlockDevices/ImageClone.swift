import CLinux
import Glibc
package import Platform

/// A copy of an image file that shares its blocks, where the file system can make one (XFS, Btrfs): the
/// content of one instant, made in the time of its metadata.
///
/// The copy has no name, so nothing of it is left when this object, the process or the machine goes: the
/// kernel frees an unnamed file with its last descriptor, and file systems do it at the next mount.
///
/// Source: ioctl_ficlonerange(2), open(2) `O_TMPFILE`.
package final class ImageClone: Sendable {
  private let file: FileDescriptor
  private let original: DiskSource

  /// Makes the unnamed file and tries whether blocks can be shared.
  ///
  /// - Returns: nil where they can't.
  package init?(preparing source: DiskSource) {
    guard source.kind == .imageFile, source.size >= 4096, let descriptor = source.descriptor,
      let path = resolvedPath(source.filePath)
    else { return nil }
    let folder = parentDirectory(path)
    guard
      let file = (try? FileDescriptor(opening: folder, O_RDWR | clinux_O_TMPFILE | clinux_O_DIRECT))
        ?? (try? FileDescriptor(opening: folder, O_RDWR | clinux_O_TMPFILE)),
      clinux_clone_first_block(file.number, descriptor) == 0
    else { return nil }
    self.file = file
    original = source
  }

  /// Makes the copy. Writers of the file wait meanwhile.
  package func cut() throws(StrobeError) {
    // A clone that was made before may be longer than the file is now.
    try file.truncate(to: 0)
    guard let descriptor = original.descriptor else {
      preconditionFailure("prepared for a file only")
    }
    try systemCall("FICLONE", original.path) { clinux_clone_file(file.number, descriptor) }
  }

  /// The copy as a source to read from.
  package func source() throws(StrobeError) -> DiskSource {
    let number = try systemCall("dup", original.path) { fcntl(file.number, F_DUPFD_CLOEXEC, 3) }
    let copy = try DiskSource(
      reading: FileDescriptor(owning: number, path: original.path), inPlaceOf: original)
    guard let size = copy.facts?.size, size == original.size else {
      throw StrobeError(
        .busy,
        "\(original.path) changed its size from \(original.size) to \(copy.facts?.size ?? 0) bytes",
        advice: "run the command again")
    }
    return copy
  }
}
