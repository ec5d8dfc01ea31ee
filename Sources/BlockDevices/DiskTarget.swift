import CLinux
import Glibc
package import Platform
import Synchronization

/// A disk that is restored to: a block device held exclusively, or a new sparse file that gets its
/// name when it is complete. Until then it is ``partialPath``, which stays when the restore is interrupted.
package final class DiskTarget: Sendable {
  package let path: String
  /// Bytes: of the device, or of the file to be made.
  package let size: Int
  package let isDevice: Bool

  private let direct: FileDescriptor
  /// Through the page cache, for what direct I/O can't do: ends that are no whole page.
  private let buffered: FileDescriptor
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
    do throws(StrobeError) {
      direct = try FileDescriptor(opening: path, O_RDWR | O_EXCL | clinux_O_DIRECT)
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
    buffered = try FileDescriptor(opening: "/proc/self/fd/\(direct.number)", O_RDWR)
    size = try DeviceGeometry(of: direct, try direct.facts()).size
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
    buffered = try PartialFile.open(for: path, resumes: resumes, wasThere: &wasThere)
    isResumed = wasThere
    do throws(StrobeError) {
      try buffered.truncate(to: size)
      let name = "/proc/self/fd/\(buffered.number)"
      if let file = try? FileDescriptor(opening: name, O_RDWR | clinux_O_DIRECT) {
        direct = file
      } else {
        direct = try FileDescriptor(opening: name, O_RDWR)
      }
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

  package var descriptor: Int32 { direct.number }

  /// What the target holds: its first `size` bytes, read as directly as they are written.
  package func source(size: Int) throws(StrobeError) -> DiskSource {
    // Whatever an interrupted restore left in the page cache.
    do throws(StrobeError) { try buffered.synchronize() } catch { throw said(error) }
    let number = try systemCall("dup", path) { fcntl(direct.number, F_DUPFD_CLOEXEC, 3) }
    return try DiskSource(
      reading: FileDescriptor(owning: number, path: path), target: path, size: size)
  }

  /// Writes through the page cache: for ends that are no whole page.
  package func writeBuffered(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    do throws(StrobeError) { try unsafe buffered.write(bytes, at: offset) } catch {
      throw said(error)
    }
  }

  /// Makes a range read as zeros, the cheapest way that guarantees it.
  ///
  /// A new file has holes there already. A device, or what an interrupted restore left, is asked to punch (`fallocate`, which guarantees
  /// zeros, unlike `BLKDISCARD`), then to write zeros itself (`BLKZEROOUT`), and gets them written as a
  /// last resort.
  package func zero(_ range: Range<Int>) throws(StrobeError) {
    guard isDevice || isResumed, !range.isEmpty else { return }
    let (first, end) = ((range.lowerBound + 4095) & ~4095, range.upperBound & ~4095)
    guard first < end else { return try writeZeros(range) }
    let aligned = first..<end
    try writeZeros(range.lowerBound..<aligned.lowerBound)
    if try punched(aligned) == false, try zeroedOut(aligned) == false { try writeZeros(aligned) }
    try writeZeros(aligned.upperBound..<range.upperBound)
  }

  private func punched(_ range: Range<Int>) throws(StrobeError) -> Bool {
    guard !cannotPunch.load(ordering: .relaxed) else { return false }
    if clinux_punch_hole(direct.number, UInt64(range.lowerBound), UInt64(range.count)) == 0 {
      return true
    }
    return try unsupported(range, "fallocate", remember: cannotPunch)
  }

  private func zeroedOut(_ range: Range<Int>) throws(StrobeError) -> Bool {
    guard !cannotZeroOut.load(ordering: .relaxed) else { return false }
    if clinux_block_zero_out(direct.number, UInt64(range.lowerBound), UInt64(range.count)) == 0 {
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
      try buffered.synchronize()
      try direct.synchronize()
    } catch {
      throw said(error)
    }
  }

  /// Makes everything durable and, for a file, visible under its name.
  package func finish() throws(StrobeError) {
    // Before the flush, so that they last: whoever could open the old file can open the new one.
    if replaces, let old = try FileFacts(path: path) {
      fchown(buffered.number, old.owner, old.group)
      fchmod(buffered.number, old.mode & 0o7777)
    }
    try synchronize()
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
