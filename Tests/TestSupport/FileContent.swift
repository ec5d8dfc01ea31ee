import Glibc
package import Platform

/// Writes bytes into a file or device at an offset, through the page cache; makes the file if need be.
package func writeBytes(
  _ bytes: [UInt8], to path: String, at offset: Int = 0, flags: Int32 = 0
) throws(StrobeError) {
  let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | flags)
  try unsafe bytes.withBytes { (memory) throws(StrobeError) in
    try unsafe file.write(memory, at: offset)
  }
  try file.synchronize()
}

/// Reads bytes of a file or device at an offset, through the page cache; fewer when it ends before.
package func readBytes(
  _ path: String, at offset: Int = 0, count: Int
) throws(StrobeError) -> [UInt8] {
  let file = try FileDescriptor(opening: path, O_RDONLY)
  var bytes = [UInt8](repeating: 0, count: count)
  let got = try unsafe bytes.withMutableBytes { (memory) throws(StrobeError) in
    try unsafe file.read(at: offset, into: memory)
  }
  return Array(bytes.prefix(got))
}
