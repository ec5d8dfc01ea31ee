import BlockDevices
import Engine
import Glibc
import Platform

/// Makes many points in one process; with a large `layerLimit` without keyframes: the longest way to a
/// chunk that a restore can have.
enum ChainMaker {
  static func run(
    repository: String, disk: String, points: Int, chunksPerPoint: Int, layerLimit: Int
  ) throws {
    let engine = try SnapshotEngine(repository: repository)
    let file = try FileDescriptor(opening: disk, O_RDWR)
    let chunkCount = try DeviceGeometry(of: file, try file.facts()).size / engine.defaultChunkSize
    var options = SnapshotOptions()
    options.disks = [.init(name: "disk", path: disk)]
    options.keyframeLayerLimit = layerLimit
    var layers = 0
    var state: UInt64 = 42
    for number in 0..<points {
      for _ in 0..<(number == 0 ? 0 : chunksPerPoint) {
        // Random places from a fixed seed; 4 KiB of new bytes each.
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let chunk = Int(state >> 33) % max(chunkCount, 1)
        let bytes = (0..<512).flatMap { index in
          unsafe withUnsafeBytes(of: (state ^ UInt64(index)) &* 0x9E37_79B9_7F4A_7C15) {
            unsafe Array($0)
          }
        }
        try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
          try unsafe file.write(bytes, at: chunk * engine.defaultChunkSize)
        }
      }
      layers = try engine.snapshot("chain", options).point.disks[0].layers.count
    }
    print("{\"points\": \(points), \"layers\": \(layers)}")
  }
}
