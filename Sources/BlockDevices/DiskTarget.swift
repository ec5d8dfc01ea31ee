import CLinux
import Glibc
package import Platform
import Synchronization

/// A disk that is restored to: a block device held exclusively, or a new sparse file that gets its
/// name when it is complete. Until then it is ``partialPath``, which stays when the restore is interrupted. Or what
/// an NBD server exports.
package final class DiskTarget: Sendable {
  package let path: String
  /// Bytes: of the device, or of the file to be made.
  package let size: Int
  package let isDevice: Bool

  private let medium: Medium

  private enum Medium: Sendable {
    /// `buffered`: through the page cache, for what direct I/O can't do: ends that are no whole page.
    case file(direct: OpenFile, buffered: OpenFile)
    case network(NBDDisk)
  }

  /// What has to live for as long as it is written to: who serves it.
  private let server: (any DiskServer)?
  /// The image file that the server writes to.
  private let file: OpenFile?
  /// Where a file is until it is complete; nil: a device.
  package let partialPath: String?
  /// Whether it is what an interrupted restore left.
  package let isResumed: Bool
  private let replaces: Bool
  private let isFinished = Atomic<Bool>(false)
  /// Ways to zero that this target turned out not to have.
  private let cannotPunch = Atomic<Bool>(false)
  private let cannotZeroOut = Atomic<Bool>(false)

  /// Takes a block device for writing; nobody else may hold it.
  package init(device path: String) throws(StrobeError) {
    let direct: OpenFile
    do throws(StrobeError) {
      direct = OpenFile(try FileDescriptor(opening: path, O_RDWR | O_EXCL | clinux_O_DIRECT))
    } catch {
      // A loop device without a file, a drive without a medium.
      if error.errno == EIO || error.errno == ENXIO || error.errno == ENOMEDIUM {
        throw DiskSource.empty("target", path)
      }
      guard error.errno == EBUSY else { throw error }
      throw StrobeError(
        .busy, "target \(path) is in use by the kernel or another program",
        advice: "unmount it or stop what holds it (lsblk, fuser -v \(path))")
    }
    // The same device, whatever the name leads to by now.
    let number = direct.descriptor.number
    let buffered = OpenFile(try FileDescriptor(opening: "/proc/self/fd/\(number)", O_RDWR))
    medium = .file(direct: direct, buffered: buffered)
    server = nil
    file = nil
    size = try DeviceGeometry(of: direct.descriptor, try direct.descriptor.facts()).size
    guard size > 0 else { throw DiskSource.empty("target", path) }
    self.path = path
    isDevice = true
    partialPath = nil
    isResumed = false
    replaces = false
  }

  /// Makes a sparse file of `size` bytes beside `path`; ``finish()`` gives it that name.
  ///
  /// - Parameters:
  ///   - replaces: whether a file of that name may be there and is replaced in the end.
  ///   - resumes: whether what an interrupted restore left is gone on with; otherwise it is replaced.
  /// - Throws: `busy` when another restore makes that file.
  package init(
    newFile path: String, size: Int, replaces: Bool, resumes: Bool = false
  ) throws(StrobeError) {
    let partial = PartialFile.path(of: path)
    var wasThere = false
    let buffered = OpenFile(
      try PartialFile.open(for: path, resumes: resumes, wasThere: &wasThere))
    isResumed = wasThere
    do throws(StrobeError) {
      try buffered.descriptor.truncate(to: size)
      medium = .file(direct: try Self.direct(buffered), buffered: buffered)
      server = nil
      file = nil
    } catch {
      if !isResumed { unsafe unlink(partial) }
      throw error
    }
    partialPath = partial
    self.path = path
    self.size = size
    self.replaces = replaces
    isDevice = false
  }

  private static func direct(_ buffered: OpenFile) throws(StrobeError) -> OpenFile {
    let name = "/proc/self/fd/\(buffered.descriptor.number)"
    if let file = try? FileDescriptor(opening: name, O_RDWR | clinux_O_DIRECT) {
      return OpenFile(file)
    }
    return OpenFile(try FileDescriptor(opening: name, O_RDWR))
  }

  /// What an NBD server exports for writing.
  ///
  /// - Parameter path: as the user named it.
  package init(
    exported disk: NBDDisk, path: String
  ) throws(StrobeError) {
    guard !disk.isReadOnly else {
      throw StrobeError(
        .refused, "target \(path) is exported read-only", advice: "let the server allow writes")
    }
    guard disk.size > 0 else { throw DiskSource.empty("target", path) }
    self.path = path
    size = disk.size
    isDevice = true
    partialPath = nil
    isResumed = false
    replaces = false
    medium = .network(disk)
    server = nil
    file = nil
  }

  /// An image file in a format, which a server writes; ``finish()`` gives it its name.
  ///
  /// - Parameters:
  ///   - image: the file beside `path`, made already, held against other restores.
  ///   - disk: what the server exports of it.
  package init(
    newImage image: consuming PartialImage, _ disk: NBDDisk, server: any DiskServer,
    path: String, replaces: Bool
  ) {
    self.path = path
    size = disk.size
    isDevice = false
    partialPath = image.path
    isResumed = image.wasThere
    self.replaces = replaces
    medium = .network(disk)
    self.server = server
    file = image.file
  }

  /// Whether it is a device or file of this machine.
  var isLocal: Bool {
    if case .file = medium { true } else { false }
  }

  /// How many threads may write at once.
  package var writerLimit: Int {
    if case .network(let disk) = medium, !disk.isShared { 1 } else { .max }
  }

  /// Requests to it.
  func queue(depth: Int, requestSize: Int) throws(StrobeError) -> any RequestQueue {
    switch medium {
    case .file(let direct, _):
      return try LocalQueue(direct.descriptor.number, slotCount: depth, slotSize: requestSize)
    case .network(let disk):
      return try NBDQueue(disk, slotCount: depth, slotSize: requestSize)
    }
  }

  /// What the target holds: its first `size` bytes, read as directly as they are written.
  package func source(size: Int) throws(StrobeError) -> DiskSource {
    guard case .file(let direct, let buffered) = medium else {
      guard case .network(let disk) = medium else { preconditionFailure("one of the two") }
      return DiskSource(reading: disk, target: path, size: size)
    }
    // Whatever an interrupted restore left in the page cache.
    do throws(StrobeError) { try buffered.descriptor.synchronize() } catch { throw said(error) }
    let open = direct.descriptor.number
    let number = try systemCall("dup", path) { fcntl(open, F_DUPFD_CLOEXEC, 3) }
    return try DiskSource(
      reading: FileDescriptor(owning: number, path: path), target: path, size: size)
  }

  /// Writes through the page cache: for ends that are no whole page.
  package func writeBuffered(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    do throws(StrobeError) {
      switch medium {
      case .file(_, let buffered): try unsafe buffered.descriptor.write(bytes, at: offset)
      case .network(let disk): try unsafe disk.write(bytes, at: offset)
      }
    } catch {
      throw said(error)
    }
  }

  private var descriptor: Int32? {
    if case .file(let direct, _) = medium { direct.descriptor.number } else { nil }
  }

  /// Makes a range read as zeros, the cheapest way that guarantees it.
  ///
  /// A new file has holes there already. A device, or what an interrupted restore left, is asked to punch (`fallocate`, which guarantees
  /// zeros, unlike `BLKDISCARD`), then to write zeros itself (`BLKZEROOUT`), and gets them written as a
  /// last resort.
  package func zero(_ range: Range<Int>) throws(StrobeError) {
    guard isDevice || isResumed, !range.isEmpty else { return }
    if case .network(let disk) = medium, disk.canZero {
      do throws(StrobeError) { return try disk.zero(range) } catch { throw said(error) }
    }
    let (first, end) = ((range.lowerBound + 4095) & ~4095, range.upperBound & ~4095)
    guard first < end else { return try writeZeros(range) }
    let aligned = first..<end
    try writeZeros(range.lowerBound..<aligned.lowerBound)
    if try punched(aligned) == false, try zeroedOut(aligned) == false { try writeZeros(aligned) }
    try writeZeros(aligned.upperBound..<range.upperBound)
  }

  private func punched(_ range: Range<Int>) throws(StrobeError) -> Bool {
    guard !cannotPunch.load(ordering: .relaxed), let descriptor else { return false }
    if clinux_punch_hole(descriptor, UInt64(range.lowerBound), UInt64(range.count)) == 0 {
      return true
    }
    return try unsupported(range, "fallocate", remember: cannotPunch)
  }

  private func zeroedOut(_ range: Range<Int>) throws(StrobeError) -> Bool {
    guard !cannotZeroOut.load(ordering: .relaxed), let descriptor else { return false }
    if clinux_block_zero_out(descriptor, UInt64(range.lowerBound), UInt64(range.count)) == 0 {
      return true
    }
    return try unsupported(range, "BLKZEROOUT", remember: cannotZeroOut)
  }

  private func unsupported(
    _ range: Range<Int>, _ call: String, remember: borrowing Atomic<Bool>
  ) throws(StrobeError) -> Bool {
    guard [EOPNOTSUPP, ENOTTY, EINVAL, ENOSYS].contains(errno) else {
      throw said(.system(errno, call: call, object: "\(path) at byte \(range.lowerBound)"))
    }
    remember.store(true, ordering: .relaxed)
    return false
  }

  private func writeZeros(_ range: Range<Int>) throws(StrobeError) {
    guard !range.isEmpty else { return }
    let zeros = AlignedBuffer(count: min(range.count, 1 << 20))
    unsafe memset(zeros.address, 0, zeros.count)
    var offset = range.lowerBound
    while offset < range.upperBound {
      let count = min(zeros.count, range.upperBound - offset)
      try unsafe writeBuffered(UnsafeRawBufferPointer(rebasing: zeros.bytes[..<count]), at: offset)
      offset += count
    }
  }

  /// Makes everything durable.
  package func synchronize() throws(StrobeError) {
    do throws(StrobeError) {
      switch medium {
      case .file(let direct, let buffered):
        try buffered.descriptor.synchronize()
        try direct.descriptor.synchronize()
      case .network(let disk): try disk.flush()
      }
    } catch {
      throw said(error)
    }
  }

  /// Makes everything durable and, for a file, visible under its name.
  package func finish() throws(StrobeError) {
    // Before the flush, so that they last: whoever could open the old file can open the new one.
    if replaces, let number = descriptor ?? file?.descriptor.number,
      let old = try FileFacts(path: path)
    {
      fchown(number, old.owner, old.group)
      fchmod(number, old.mode & 0o7777)
    }
    try synchronize()
    // What it keeps in memory of the format is in the file when it has ended.
    try server?.end()
    do throws(StrobeError) { try file?.descriptor.synchronize() } catch { throw said(error) }
    guard let partialPath else { return }
    do throws(StrobeError) {
      if replaces {
        try systemCall("rename", path) { unsafe rename(partialPath, path) }
      } else {
        try publish(partialPath, as: path)
      }
    } catch {
      guard error.errno == EEXIST else { throw error }
      throw StrobeError(
        .exists, "target \(path) appeared while it was restored", advice: "choose another name")
    }
    isFinished.store(true, ordering: .relaxed)
    try synchronizeDirectory(parentDirectory(path))
  }

  /// Removes a file that this restore made and didn't complete. What an earlier one left stays, and a
  /// device keeps what was written to it.
  package func abandon() {
    guard let partialPath, !isResumed, !isFinished.load(ordering: .relaxed) else { return }
    unsafe unlink(partialPath)
  }

  /// An error of this target, by the name that the user knows.
  package func said(_ error: StrobeError) -> StrobeError {
    guard error.errno != 0 else { return error }
    let why = unsafe String(cString: strerror(error.errno))
    switch error.errno {
    case ENOSPC, EDQUOT:
      return error.explained(
        "target \(path): \(why)", advice: "free space there or choose another target")
    default:
      return error.explained("target \(path): \(why)", advice: error.advice)
    }
  }
}
