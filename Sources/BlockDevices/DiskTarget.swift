import CLinux
import Glibc
package import Platform
import Synchronization

/// A disk that is restored to: a block device held exclusively, or a new sparse file that gets its
/// name when it is complete.
package final class DiskTarget: Sendable {
  package let path: String
  /// Bytes: of the device, or of the file to be made.
  package let size: Int
  package let isDevice: Bool

  private let direct: FileDescriptor
  /// Through the page cache, for what direct I/O can't do: ends that are no whole page.
  private let buffered: FileDescriptor
  private let temporaryPath: String?
  private let replaces: Bool
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
    temporaryPath = nil
    replaces = false
  }

  /// Makes a sparse file of `size` bytes beside `path`; ``finish()`` gives it that name.
  ///
  /// - Parameter replaces: whether a file of that name may be there and is replaced in the end.
  package init(newFile path: String, size: Int, replaces: Bool) throws(StrobeError) {
    let folder = parentDirectory(path)
    do throws(StrobeError) {
      // Without a name it vanishes with the process, however that ends. See open(2), O_TMPFILE.
      buffered = try FileDescriptor(opening: folder, O_RDWR | clinux_O_TMPFILE)
      temporaryPath = nil
    } catch {
      guard [EOPNOTSUPP, EISDIR, EINVAL].contains(error.errno) else { throw error }
      let temporary =
        "\(folder)/.\(lastComponent(path)).strobe-partial-\(hexadecimal(randomBytes(4)))"
      buffered = try FileDescriptor(opening: temporary, O_RDWR | O_CREAT | O_EXCL)
      temporaryPath = temporary
    }
    do throws(StrobeError) {
      try buffered.truncate(to: size)
      let name = "/proc/self/fd/\(buffered.number)"
      if let file = try? FileDescriptor(opening: name, O_RDWR | clinux_O_DIRECT) {
        direct = file
      } else {
        direct = try FileDescriptor(opening: name, O_RDWR)
      }
    } catch {
      if let temporaryPath { unsafe unlink(temporaryPath) }
      throw error
    }
    self.path = path
    self.size = size
    self.replaces = replaces
    isDevice = false
  }

  package var descriptor: Int32 { direct.number }

  /// Writes through the page cache: for ends that are no whole page.
  package func writeBuffered(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    do throws(StrobeError) { try unsafe buffered.write(bytes, at: offset) } catch {
      throw said(error)
    }
  }

  /// Makes a range read as zeros, the cheapest way that guarantees it.
  ///
  /// A new file has holes there already. A device is asked to punch (`fallocate`, which guarantees
  /// zeros, unlike `BLKDISCARD`), then to write zeros itself (`BLKZEROOUT`), and gets them written as a
  /// last resort.
  package func zero(_ range: Range<Int>) throws(StrobeError) {
    guard isDevice, !range.isEmpty else { return }
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

  /// Makes everything durable and, for a file, visible under its name.
  package func finish() throws(StrobeError) {
    // Before the flush, so that they last: whoever could open the old file can open the new one.
    if replaces, let old = try FileFacts(path: path) {
      fchown(buffered.number, old.owner, old.group)
      fchmod(buffered.number, old.mode & 0o7777)
    }
    do throws(StrobeError) {
      try buffered.synchronize()
      try direct.synchronize()
    } catch {
      throw said(error)
    }
    guard !isDevice else { return }
    try name()
    try synchronizeDirectory(parentDirectory(path))
  }

  /// Gives a file its name.
  private func name() throws(StrobeError) {
    do throws(StrobeError) {
      guard replaces else {
        if let temporaryPath { return try publish(temporaryPath, as: path) }
        return try link(to: path)
      }
      let staged =
        temporaryPath ?? "\(parentDirectory(path))/.strobe-\(hexadecimal(randomBytes(8)))"
      if temporaryPath == nil { try link(to: staged) }
      do throws(StrobeError) {
        try systemCall("rename", path) { unsafe rename(staged, path) }
      } catch {
        unsafe unlink(staged)
        throw error
      }
    } catch {
      guard error.errno == EEXIST else { throw error }
      throw StrobeError(
        .exists, "target \(path) appeared while it was restored", advice: "choose another name")
    }
  }

  private func link(to name: String) throws(StrobeError) {
    let nameless = "/proc/self/fd/\(buffered.number)"
    try systemCall("linkat", name) {
      unsafe linkat(AT_FDCWD, nameless, AT_FDCWD, name, AT_SYMLINK_FOLLOW)
    }
  }

  /// Leaves no half-restored file behind. A device keeps what was written to it.
  package func abandon() {
    if let temporaryPath { unsafe unlink(temporaryPath) }
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
