import ChangeDetection
import Glibc
import Platform

/// How many bytes a second of processor time one core fingerprints, by each kind: content that is in memory and
/// not in the cache.
enum FingerprintSpeed {
  private static let size = 64 << 20

  /// - Parameter mebibytes: how much is hashed by each kind and size of chunk.
  static func run(mebibytes: Int) {
    let buffer = AlignedBuffer(count: size)
    for offset in stride(from: 0, to: size, by: 8) {
      unsafe buffer.address.setLittleEndian(UInt64(offset) &* 0x9E37_79B9_7F4A_7C15, at: offset)
    }
    var rows: [String] = []
    for chunkSize in [4 << 10, 64 << 10, 1 << 20] {
      for kind in FingerprintKind.allCases {
        let rate = rate(FingerprintSecret(kind), buffer, chunkSize, total: mebibytes << 20)
        rows.append(
          "{\"kind\": \"\(kind.rawValue)\", \"chunkSize\": \(chunkSize), \"bytesPerCPUSecond\": \(rate)}"
        )
      }
    }
    print("[" + rows.joined(separator: ", ") + "]")
  }

  private static func rate(
    _ secret: FingerprintSecret, _ buffer: borrowing AlignedBuffer, _ chunkSize: Int, total: Int
  ) -> Int {
    let start = cpuSeconds()
    var sum: UInt64 = 0
    for index in 0..<(total / chunkSize) {
      let offset = index * chunkSize % size
      let chunk = unsafe UnsafeRawBufferPointer(
        start: buffer.address + offset, count: chunkSize)
      sum &+= unsafe secret.fingerprint(of: chunk).low
    }
    precondition(sum != 0)
    return Int(Double(total / chunkSize * chunkSize) / max(cpuSeconds() - start, 1e-9))
  }

  private static func cpuSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
