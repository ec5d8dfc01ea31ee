package import Platform

/// A mounted file system that takes writes and whose bytes lie on a disk that is looked at.
package struct FileSystemOnDisk: Sendable, Equatable {
  /// One of the places where it is mounted.
  package let mountPoint: String
  /// `ext4`, `xfs`, `btrfs`, …
  package let fileSystem: String
  /// The number of its superblock, which is the same through every mount of it.
  package let device: DeviceNumber
  /// The block devices that it is made of: one, or those of a Btrfs.
  package let members: [DeviceNumber]
  /// How many devices and file systems lie between it and the disk. What lies on a file of another file
  /// system is deeper than that.
  package let depth: Int
  /// The disks that it lies on, as indices of those that were asked for.
  package let sources: [Int]
  /// Whether a mount point could be opened. One that can't be, because it is mounted over, can't be frozen.
  package let isReachable: Bool

  package init(
    mountPoint: String, fileSystem: String, device: DeviceNumber, members: [DeviceNumber],
    depth: Int, sources: [Int], isReachable: Bool
  ) {
    self.mountPoint = mountPoint
    self.fileSystem = fileSystem
    self.device = device
    self.members = members
    self.depth = depth
    self.sources = sources
    self.isReachable = isReachable
  }

  /// `major:minor` of ``device``.
  package var deviceText: String { device.description }
}

/// A disk: what the file systems may lie on.
package enum DiskReference: Sendable {
  case device(DeviceNumber)
  /// An image file. What holds the image is no file system *on* it.
  case image(FileFacts)
  /// On no device or file of this machine: nothing mounted here lies on it.
  case elsewhere

  package init(_ facts: FileFacts) {
    self = facts.isBlockDevice ? .device(facts.specialDevice) : .image(facts)
  }
}
