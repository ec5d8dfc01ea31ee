import Glibc
package import Platform

// What a guest's old content is put into while a pass reads: nothing in it is ever wanted again.

/// Writes images that QEMU fills.
package enum ScratchImage {
  private static let clusterBits = 16
  private static let clusterSize = 1 << clusterBits

  /// An empty qcow2 image of version 3, which shows what lies behind it.
  ///
  /// ```
  /// cluster 0       header
  /// cluster 1       table of reference counts: one entry, cluster 2
  /// cluster 2       reference counts, 16 bits each: 1 for every cluster of this file
  /// cluster 3 …     L1 table: zeros
  /// ```
  /// Source: docs/interop/qcow2.txt of QEMU.
  package static func makeOverlay(_ file: borrowing FileDescriptor, size: Int) throws(StrobeError) {
    let entriesPerTable = clusterSize / 8
    let covered = clusterSize * entriesPerTable
    let tables = (size + covered - 1) / covered
    let tableClusters = max(1, (tables + entriesPerTable - 1) / entriesPerTable)
    let clusters = 3 + tableClusters
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(0x5146_49FB))  // "QFI\xFB"
    bytes.append(bigEndian: UInt32(3))
    bytes.append(bigEndian: UInt64(0))  // backing file: where its name is,
    bytes.append(bigEndian: UInt32(0))  // and how long; QEMU is told the node
    bytes.append(bigEndian: UInt32(clusterBits))
    bytes.append(bigEndian: UInt64(size))
    bytes.append(bigEndian: UInt32(0))  // encryption
    bytes.append(bigEndian: UInt32(tables))
    bytes.append(bigEndian: UInt64(3 * clusterSize))
    bytes.append(bigEndian: UInt64(1 * clusterSize))
    bytes.append(bigEndian: UInt32(1))  // clusters of the table of reference counts
    bytes.append(bigEndian: UInt32(0))  // snapshots: how many,
    bytes.append(bigEndian: UInt64(0))  // and where
    for _ in 0..<3 { bytes.append(bigEndian: UInt64(0)) }  // features
    bytes.append(bigEndian: UInt32(4))  // a reference count has 1 << 4 bits
    bytes.append(bigEndian: UInt32(104))  // bytes of this header
    bytes += repeatElement(0, count: 2 * clusterSize - bytes.count)
    // The table's entry stands at the start of cluster 1.
    bytes.removeLast(clusterSize)
    bytes.append(bigEndian: UInt64(2 * clusterSize))
    bytes += repeatElement(0, count: clusterSize - 8)
    for _ in 0..<clusters { bytes.append(bigEndian: UInt16(1)) }
    try unsafe bytes.withBytes { (memory) throws(StrobeError) in
      try unsafe file.write(memory, at: 0)
    }
    try file.truncate(to: clusters * clusterSize)
  }

  /// Bytes that an overlay takes at most: everything is overwritten.
  package static func overlayLimit(size: Int) -> Int {
    // A table of 8 bytes and a reference count of 2 for each cluster, and what is rounded.
    size + size / clusterSize * 10 + 8 * clusterSize
  }
}

extension [UInt8] {
  mutating func append(bigEndian value: some FixedWidthInteger) {
    unsafe Swift.withUnsafeBytes(of: value.bigEndian) { unsafe append(contentsOf: $0) }
  }
}
