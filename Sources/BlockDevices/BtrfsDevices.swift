import CLinux
package import Platform

/// The devices that a Btrfs of one or several devices is made of.
///
/// Source: BTRFS_IOC_FS_INFO (linux/btrfs.h) and `/sys/fs/btrfs/<id>/devices`. The mount table names only
/// one of them, by a path that need not exist.
package enum BtrfsDevices {
  /// - Parameter file: anything opened on the file system.
  package static func members(of file: borrowing FileDescriptor) -> [DeviceNumber]? {
    var id = [UInt8](repeating: 0, count: 16)
    let result = unsafe id.withUnsafeMutableBufferPointer {
      unsafe clinux_btrfs_id(file.number, $0.baseAddress!)
    }
    guard result == 0 else { return nil }
    let digits = hexadecimal(id)
    var text = ""
    for (index, digit) in digits.enumerated() {
      if [8, 12, 16, 20].contains(index) { text += "-" }
      text.append(digit)
    }
    guard let names = try? namesInDirectory("/sys/fs/btrfs/\(text)/devices") else { return nil }
    return names.compactMap(DeviceTree.number(ofName:))
  }

  /// The devices of the mounted Btrfs that a device is part of, or nil.
  package static func members(beside name: String) -> [DeviceNumber]? {
    for system in (try? namesInDirectory("/sys/fs/btrfs")) ?? [] {
      let members = (try? namesInDirectory("/sys/fs/btrfs/\(system)/devices")) ?? []
      if members.contains(name) { return members.compactMap(DeviceTree.number(ofName:)) }
    }
    return nil
  }
}
