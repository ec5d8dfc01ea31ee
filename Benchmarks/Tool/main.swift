import Glibc

// What a benchmark needs from inside: the codec's own speed, and chains that would take hours to make
// by waiting for them. Run by `scripts/bench`; each prints one JSON object.
let arguments = Array(CommandLine.arguments.dropFirst())
do {
  switch arguments.first {
  case "codec" where arguments.count == 2:
    try CodecSpeed.run(file: arguments[1])
  case "chain" where arguments.count == 6:
    try ChainMaker.run(
      repository: arguments[1], disk: arguments[2], points: Int(arguments[3]) ?? 0,
      chunksPerPoint: Int(arguments[4]) ?? 0, layerLimit: Int(arguments[5]) ?? 32)
  case "fingerprints" where arguments.count == 2:
    FingerprintSpeed.run(mebibytes: Int(arguments[1]) ?? 0)
  default:
    print(
      "usage: strobe-bench codec FILE | fingerprints MIB | chain REPOSITORY DISK POINTS CHUNKS LAYERS"
    )
    exit(2)
  }
} catch {
  print("strobe-bench: \(error)")
  exit(1)
}
