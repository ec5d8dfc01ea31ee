import CLinux
import Glibc
package import Platform

/// A disk that is read: a block device or a raw image file, opened for direct I/O where that works, or what
/// an NBD server exports.
package final class DiskSource: Sendable {
  package enum Kind: String, Sendable {
    case blockDevice, imageFile
    /// An NBD export of somebody else's.
    case network
    /// A disk of a guest, which its hypervisor shows when the cut is made; until then it can't be read.
    case guest
  }

  /// As the user named it.
  package let path: String
  /// The device or file of this machine that it is, or that is served; the same as `path` for others.
  package let filePath: String
  package let kind: Kind
  /// Bytes; a multiple of 512.
  package let size: Int
  /// Bytes: 512 or 4,096.
  package let logicalSectorSize: Int
  package let identity: DiskIdentity
  /// What the source is on this machine, to tell whether two of them are one; nil: it is elsewhere.
  package let facts: FileFacts?
  private let medium: Medium

  private enum Medium: Sendable {
    case file(OpenFile, isDirect: Bool)
    /// Served by somebody who has to live for as long: see `keeper`.
    case network(NBDDisk)
    case none
  }

  /// What has to live for as long as the source is read.
  private let keeper: (any DiskServer)?

  private static func isDirect(_ file: borrowing FileDescriptor) -> Bool {
    fcntl(file.number, F_GETFL) & clinux_O_DIRECT != 0
  }

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
    filePath = path
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
    guard geometry.size <= NBDDisk.largestSize else {
      throw StrobeError(.usage, "source \(path) has \(geometry.size) bytes, more than any disk")
    }
    size = geometry.size
    logicalSectorSize = geometry.logicalSectorSize
    identity = DiskIdentity(of: facts)
    self.facts = facts
    // Dirty pages written back later would look like somebody's writes during the pass.
    if fsync(file.number) != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT) {
      throw .system(errno, call: "fsync", object: path)
    }
    let isDirect = Self.isDirect(file)
    medium = .file(OpenFile(file), isDirect: isDirect)
    keeper = nil
  }

  /// A copy in a file that is read in place of the original: the identity is the original's.
  package init(
    reading file: consuming FileDescriptor, inPlaceOf original: DiskSource
  ) throws(StrobeError) {
    path = original.path
    filePath = original.filePath
    kind = .imageFile
    size = original.size
    logicalSectorSize = original.logicalSectorSize
    identity = original.identity
    facts = try file.facts()
    let isDirect = Self.isDirect(file)
    medium = .file(OpenFile(file), isDirect: isDirect)
    keeper = nil
  }

  /// The first `size` bytes of a restore's target, to see what it holds already.
  init(
    reading file: consuming FileDescriptor, target path: String, size: Int
  ) throws(StrobeError) {
    self.path = path
    filePath = path
    self.size = size
    let facts = try file.facts()
    self.facts = facts
    kind = facts.isBlockDevice ? .blockDevice : .imageFile
    logicalSectorSize = try DeviceGeometry(of: file, facts).logicalSectorSize
    identity = DiskIdentity(of: facts)
    let isDirect = Self.isDirect(file)
    medium = .file(OpenFile(file), isDirect: isDirect)
    keeper = nil
  }

  /// What an NBD server exports.
  ///
  /// - Parameters:
  ///   - path: as the user named it.
  ///   - imageFile: the file behind it, when it is served by us.
  ///   - keeper: what has to live for as long as it is read: the server.
  package init(
    _ disk: NBDDisk, path: String, imageFile: String? = nil, keeper: (any DiskServer)? = nil
  ) throws(StrobeError) {
    guard disk.size > 0 else { throw Self.empty("source", path) }
    guard disk.size % 512 == 0 else {
      throw StrobeError(
        .usage, "source \(path) has \(disk.size) bytes, which is no whole number of sectors")
    }
    self.path = path
    filePath = imageFile ?? path
    let file: FileFacts? = if let imageFile { try FileFacts(path: imageFile) } else { nil }
    kind = imageFile == nil ? .network : .imageFile
    size = disk.size
    logicalSectorSize = 512
    identity = file.map { DiskIdentity(of: $0) } ?? DiskIdentity(text: "nbd:\(path)")
    facts = file
    medium = .network(disk)
    self.keeper = keeper
  }

  /// A disk of a guest, as its hypervisor describes it.
  package init(guestDisk path: String, size: Int, identity: String) {
    self.path = path
    filePath = path
    kind = .guest
    self.size = size
    logicalSectorSize = 512
    self.identity = DiskIdentity(text: identity)
    facts = nil
    medium = .none
    keeper = nil
  }

  /// What an NBD server shows of a disk, read in place of it: the identity is the original's.
  package init(
    reading disk: NBDDisk, inPlaceOf original: DiskSource
  ) throws(StrobeError) {
    guard disk.size == original.size else {
      throw StrobeError(
        .busy, "\(original.path) changed its size from \(original.size) to \(disk.size) bytes",
        advice: "run the command again")
    }
    path = original.path
    filePath = original.filePath
    kind = original.kind
    size = original.size
    logicalSectorSize = original.logicalSectorSize
    identity = original.identity
    facts = original.facts
    medium = .network(disk)
    keeper = nil
  }

  /// What is written to a target, read back from it.
  init(reading disk: NBDDisk, target path: String, size: Int) {
    self.path = path
    filePath = path
    kind = .network
    self.size = size
    logicalSectorSize = 512
    identity = DiskIdentity(text: "nbd:\(path)")
    facts = nil
    medium = .network(disk)
    keeper = nil
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

  /// Of a device or file of this machine that is read itself.
  package var descriptor: Int32? {
    if case .file(let file, _) = medium { file.descriptor.number } else { nil }
  }

  /// What an NBD server says of it.
  var network: NBDDisk? {
    if case .network(let disk) = medium { disk } else { nil }
  }

  /// How many threads may read at once.
  package var readerLimit: Int { network?.isShared == false ? 1 : .max }

  /// Whether two sources are the same device or file.
  package func isSame(as other: DiskSource) -> Bool {
    switch (kind, other.kind) {
    case (.blockDevice, .blockDevice): facts?.specialDevice == other.facts?.specialDevice
    case (.imageFile, .imageFile):
      if let facts, let others = other.facts { facts.isSameFile(as: others) } else { false }
    case (.network, .network), (.guest, .guest): path == other.path
    default: false
    }
  }

  /// Requests to it.
  func queue(depth: Int, requestSize: Int) throws(StrobeError) -> any RequestQueue {
    switch medium {
    case .file(let file, _):
      return try LocalQueue(file.descriptor.number, slotCount: depth, slotSize: requestSize)
    case .network(let disk):
      return try NBDQueue(disk, slotCount: depth, slotSize: requestSize)
    case .none: preconditionFailure("a guest's disk is read at its export")
    }
  }

  /// Reads a range again, step by step, after a read of it failed or fell short.
  ///
  /// - Parameter failed: bytes that were read, or `-errno`.
  /// - Throws: an error that names the first byte that can't be read.
  func readAgain(
    at offset: Int, into buffer: UnsafeMutableRawBufferPointer, failed: Int
  ) throws(StrobeError) {
    guard case .file(let open, let isDirect) = medium else {
      let why = unsafe String(cString: strerror(Int32(clamping: -min(failed, 0))))
      throw StrobeError(
        .system(errno: Int32(clamping: -min(failed, 0)), call: "read", object: path),
        "\(path): read error in bytes \(offset) to \(offset + buffer.count - 1): \(why)",
        advice: "look at what the NBD server says; nothing was committed")
    }
    try unsafe readAgain(open, isDirect, at: offset, into: buffer)
  }

  private func readAgain(
    _ open: OpenFile, _ isDirect: Bool, at offset: Int, into buffer: UnsafeMutableRawBufferPointer
  ) throws(StrobeError) {
    var done = 0
    while done < buffer.count {
      let step = min(4096, buffer.count - done)
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + step)])
      do throws(StrobeError) {
        // The ring's buffers are whole pages, so the page that holds a short end has room.
        let whole = unsafe UnsafeMutableRawBufferPointer(
          start: part.baseAddress, count: (step + 4095) & ~4095)
        let count = try unsafe open.descriptor.read(
          at: offset + done, into: isDirect ? whole : part)
        guard count >= step else {
          // The file may end long before this range.
          let now = try open.descriptor.facts()
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

/// A descriptor that several may hold.
final class OpenFile: Sendable {
  let descriptor: FileDescriptor

  init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
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
