import Glibc
package import Platform

/// How an image file holds a disk. All but raw ones are read and written by QEMU's own code.
package enum ImageFormat: String, Sendable, CaseIterable {
  case raw, qcow2, vmdk, vdi, vhdx

  /// What the beginning of a file looks like; nil: like none of these.
  ///
  /// Only to ask back: a raw disk begins with what its guest wrote there.
  package init?(ofFile path: String) throws(StrobeError) {
    let file = try FileDescriptor(opening: path, O_RDONLY)
    var head = [UInt8](repeating: 0, count: 512)
    let count = try unsafe head.withMutableBytes { (bytes) throws(StrobeError) in
      try unsafe file.read(at: 0, into: bytes)
    }
    func holds(_ mark: [UInt8], at offset: Int = 0) -> Bool {
      offset + mark.count <= count && Array(head[offset..<(offset + mark.count)]) == mark
    }
    if holds([0x51, 0x46, 0x49, 0xFB]) {
      self = .qcow2
    } else if holds(Array("KDMV".utf8)) || holds(Array("COWD".utf8))
      || holds(Array("# Disk DescriptorFile".utf8))
    {
      self = .vmdk
    } else if holds([0x7F, 0x10, 0xDA, 0xBE], at: 0x40) {
      self = .vdi
    } else if holds(Array("vhdxfile".utf8)) {
      self = .vhdx
    } else {
      return nil
    }
  }
}

extension Array where Element == UInt8 {
  fileprivate mutating func withMutableBytes<Result>(
    _ body: (UnsafeMutableRawBufferPointer) throws(StrobeError) -> Result
  ) throws(StrobeError) -> Result {
    var outcome: Swift.Result<Result, StrobeError>?
    unsafe withUnsafeMutableBytes { bytes in
      do throws(StrobeError) {
        outcome = .success(try unsafe body(bytes))
      } catch {
        outcome = .failure(error)
      }
    }
    return try outcome!.get()
  }
}
