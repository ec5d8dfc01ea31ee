package import CLinux
import Glibc

/// An owned file descriptor: closed when it goes out of scope.
package struct FileDescriptor: ~Copyable, Sendable {
  package let number: Int32
  /// What it was opened as, for error messages.
  package let path: String

  /// Opens `path`; `O_CLOEXEC` is always added. See open(2).
  package init(opening path: String, _ flags: Int32, mode: UInt32 = 0o600) throws(StrobeError) {
    number = try systemCall("open", path) { unsafe open(path, flags | O_CLOEXEC, mode) }
    self.path = path
  }

  /// A new file without a name in `folder`, which vanishes with its descriptor.
  package init(unnamedIn folder: String) throws(StrobeError) {
    if let file = try? FileDescriptor(opening: folder, O_RDWR | clinux_O_TMPFILE) {
      self = file
      return
    }
    let path = folder + "/unnamed-" + hexadecimal(randomBytes(8))
    self = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
    unsafe unlink(path)
  }

  /// Takes over a descriptor that is open already.
  package init(owning number: Int32, path: String) {
    self.number = number
    self.path = path
  }

  deinit { close(number) }

  /// Reads until `buffer` is full or the file ends, and returns how many bytes that were.
  package func read(
    at offset: Int, into buffer: UnsafeMutableRawBufferPointer
  ) throws(StrobeError) -> Int {
    var done = 0
    while done < buffer.count {
      let count = try systemCall("read", "\(path) at byte \(offset + done)") {
        unsafe pread(number, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      }
      if count == 0 { break }
      done += count
    }
    return done
  }

  /// Writes all of `buffer`, in as many steps as it takes.
  package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    var done = 0
    while done < buffer.count {
      let count = try systemCall("write", "\(path) at byte \(offset + done)") {
        unsafe pwrite(number, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      }
      guard count > 0 else {
        throw .system(EIO, call: "write", object: "\(path) at byte \(offset + done)")
      }
      done += count
    }
  }

  /// Waits until data and metadata are on the medium. See fsync(2).
  package func synchronize() throws(StrobeError) {
    try systemCall("fsync", path) { fsync(number) }
  }

  /// Waits for what is being written back now, and finds out whether any of it failed: reading
  /// a page that could not be written gives back what was there before. See sync_file_range(2).
  package func checkWriteback() throws(StrobeError) {
    try systemCall("sync_file_range", path) { clinux_wait_for_writeback(number) }
  }

  package func truncate(to size: Int) throws(StrobeError) {
    try systemCall("ftruncate", path) { ftruncate(number, off_t(size)) }
  }

  /// See statx(2).
  package func facts() throws(StrobeError) -> FileFacts {
    var facts = FileFacts()
    try systemCall("statx", path) { unsafe clinux_file_facts(number, nil, &facts) }
    return facts
  }
}

package typealias FileFacts = clinux_file_facts

extension FileFacts {
  /// What `path` is, or nil when there is nothing.
  package init?(path: String) throws(StrobeError) {
    self.init()
    do throws(StrobeError) {
      try systemCall("stat", path) { unsafe clinux_file_facts(-1, path, &self) }
    } catch {
      if error.errno == ENOENT || error.errno == ENOTDIR { return nil }
      throw error
    }
  }

  package var isBlockDevice: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFBLK) }
  package var isRegularFile: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFREG) }
  package var isDirectory: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFDIR) }
  package var isSocket: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFSOCK) }

  /// The device that this special file stands for.
  package var specialDevice: DeviceNumber {
    DeviceNumber(major: Int(special_major), minor: Int(special_minor))
  }

  /// The device of the file system that holds this file.
  package var device: DeviceNumber {
    DeviceNumber(major: Int(device_major), minor: Int(device_minor))
  }

  package func isSameFile(as other: FileFacts) -> Bool {
    inode == other.inode && device == other.device
  }
}

/// A device's number, as in `/proc/self/mountinfo` and `/sys/dev/block`.
package struct DeviceNumber: Hashable, Sendable, CustomStringConvertible {
  package let major: Int
  package let minor: Int

  package init(major: Int, minor: Int) {
    self.major = major
    self.minor = minor
  }

  package var description: String { "\(major):\(minor)" }
}
