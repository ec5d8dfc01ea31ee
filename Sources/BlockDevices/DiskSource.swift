import CLinux
import Glibc
package import Platform

/// A disk that is read: a block device or a raw image file, opened for direct I/O where that works.
package final class DiskSource: Sendable {
  package enum Kind: String, Sendable {
    case blockDevice, imageFile
  }

  /// As the user named it.
  package let path: String
  package let kind: Kind
  /// Bytes; a multiple of 512.
  package let size: Int
  /// Bytes: 512 or 4,096.
  package let logicalSectorSize: Int
  package let identity: DiskIdentity
  /// What the source is, to tell whether two of them are one.
  package let facts: FileFacts
  private let file: FileDescriptor
  private let isDirect: Bool

  /// Opens a source for reading and writes its page cache back, so that direct reads see all of it.
  package init(path: String) throws(StrobeError) {
    guard let found = try FileFacts(path: path) else {
      throw StrobeError(
        .notFound, "source \(path) does not exist", advice: "check the path; lsblk lists the disks")
    }
    guard found.isBlockDevice || found.isRegularFile else {
      throw StrobeError(
        .usage, "source \(path) is neither a block device nor a regular file",
        advice: "name a device such as /dev/vdb or a raw image file")
    }
    self.path = path
    kind = found.isBlockDevice ? .blockDevice : .imageFile
    let file = try Self.open(path)
    let facts = try file.facts()
    guard facts.isSameFile(as: found), facts.isBlockDevice == found.isBlockDevice else {
      throw StrobeError(
        .busy, "source \(path) was replaced while it was opened", advice: "try again")
    }
    let geometry = try DeviceGeometry(of: file, facts)
    guard geometry.size > 0 || facts.isRegularFile else { throw Self.empty("source", path) }
    guard geometry.size % 512 == 0 else {
      throw StrobeError(
        .usage, "source \(path) has \(geometry.size) bytes, which is no whole number of sectors",
        advice: "pad the image with: truncate -s %512 \(path)")
    }
    size = geometry.size
    logicalSectorSize = geometry.logicalSectorSize
    identity = DiskIdentity(of: file, facts)
    self.facts = facts
    isDirect = fcntl(file.number, F_GETFL) & clinux_O_DIRECT != 0
    // Dirty pages written back later would look like somebody's writes during the pass.
    if fsync(file.number) != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT) {
      throw .system(errno, call: "fsync", object: path)
    }
    self.file = file
  }

  /// A copy in a file that is read in place of the original: the identity is the original's.
  package init(
    reading file: consuming FileDescriptor, inPlaceOf original: DiskSource
  ) throws(StrobeError) {
    path = original.path
    kind = .imageFile
    size = original.size
    logicalSectorSize = original.logicalSectorSize
    identity = original.identity
    facts = try file.facts()
    isDirect = fcntl(file.number, F_GETFL) & clinux_O_DIRECT != 0
    self.file = file
  }

  /// The first `size` bytes of a restore's target, to see what it holds already.
  init(
    reading file: consuming FileDescriptor, target path: String, size: Int
  ) throws(StrobeError) {
    self.path = path
    self.size = size
    facts = try file.facts()
    kind = facts.isBlockDevice ? .blockDevice : .imageFile
    logicalSectorSize = try DeviceGeometry(of: file, facts).logicalSectorSize
    identity = DiskIdentity(of: file, facts)
    isDirect = fcntl(file.number, F_GETFL) & clinux_O_DIRECT != 0
    self.file = file
  }

  private static func open(_ path: String) throws(StrobeError) -> FileDescriptor {
    do throws(StrobeError) {
      return try FileDescriptor(opening: path, O_RDONLY | clinux_O_DIRECT)
    } catch {
      guard error.errno == EINVAL else { throw error }
      return try FileDescriptor(opening: path, O_RDONLY)
    }
  }

  /// A device without a medium: a detached loop device, an empty drive.
  static func empty(_ what: String, _ path: String) -> StrobeError {
    StrobeError(
      .notFound, "\(what) \(path) has 0 bytes: nothing is attached or inserted",
      advice: "attach it, or say where the disk is now")
  }

  package var descriptor: Int32 { file.number }

  /// Whether two sources are the same device or file.
  package func isSame(as other: DiskSource) -> Bool {
    switch (kind, other.kind) {
    case (.blockDevice, .blockDevice): facts.specialDevice == other.facts.specialDevice
    case (.imageFile, .imageFile): facts.isSameFile(as: other.facts)
    default: false
    }
  }

  /// Direct reads of a file's unaligned end ask for the whole last page and come back short.
  func requestLength(_ length: Int) -> Int { (length + 4095) & ~4095 }

  /// Reads a range again, step by step, after a read of it failed or fell short.
  ///
  /// - Throws: an error that names the first byte that can't be read.
  func readAgain(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(StrobeError) {
    var done = 0
    while done < buffer.count {
      let step = min(4096, buffer.count - done)
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + step)])
      do throws(StrobeError) {
        // The ring's buffers are whole pages, so the page that holds a short end has room.
        let whole = unsafe UnsafeMutableRawBufferPointer(
          start: part.baseAddress, count: requestLength(step))
        let count = try unsafe file.read(at: offset + done, into: isDirect ? whole : part)
        guard count >= step else {
          // The file may end long before this range.
          let now = try file.facts()
          let end = min(now.isRegularFile ? Int(now.size) : size, offset + done + count)
          throw StrobeError(
            .system(errno: EIO, call: "read", object: path),
            "\(path) ends at byte \(end) although it has \(size) bytes",
            advice: "it was truncated while it was read; run the command again")
        }
      } catch {
        guard error.errno == EIO || error.errno == ENODATA || error.errno == EREMOTEIO else {
          throw error
        }
        if case .system(_, _, let object) = error.reason, object == path { throw error }
        throw error.explained(
          "\(path): read error at byte \(offset + done): \(unsafe String(cString: strerror(error.errno)))",
          advice: "check the disk (dmesg, smartctl); nothing was committed")
      }
      done += step
    }
  }
}

/// Size and sector of a device or file.
package struct DeviceGeometry {
  /// Bytes.
  package let size: Int
  /// Bytes: 512 or 4,096; 512 for a file.
  package let logicalSectorSize: Int

  package init(of file: borrowing FileDescriptor, _ facts: FileFacts) throws(StrobeError) {
    guard facts.isBlockDevice else {
      size = Int(facts.size)
      logicalSectorSize = 512
      return
    }
    var bytes: UInt64 = 0
    var sector: Int32 = 0
    let number = file.number
    try systemCall("BLKGETSIZE64", file.path) { unsafe clinux_block_size64(number, &bytes) }
    try systemCall("BLKSSZGET", file.path) { unsafe clinux_block_logical_sector(number, &sector) }
    size = Int(bytes)
    logicalSectorSize = Int(sector)
  }
}
