import CLinux
import Platform
import TestSupport
import Testing
import VirtualMachines

/// The points of a test: what a request says.
func request(
  _ guest: TestGuest, point: Int, parent: Int? = nil, disks: [String]? = nil, mayPause: Bool = true,
  countsChanges: Bool = true, scratch: String? = nil, collection: String? = nil,
  stop: CancellationFlag = CancellationFlag()
) -> GuestPassRequest {
  func id(_ number: Int) -> String {
    let digits = String(number, radix: 16)
    return digits + String(repeating: "0", count: 24 - digits.count)
  }
  return GuestPassRequest(
    collection: collection ?? guest.collection, point: id(point), parent: parent.map(id),
    disks: disks ?? guest.names, scratchFolder: scratch ?? guest.folder.path, mayPause: mayPause,
    countsChanges: countsChanges, stop: stop)
}

/// Makes the cut as the engine does.
func cut(_ pass: any GuestPass, _ guest: TestGuest) throws {
  if pass.needsPause { try guest.pause() }
  do { try pass.cut() } catch {
    if pass.needsPause { try guest.letGoOn() }
    throw error
  }
  if pass.needsPause { try guest.letGoOn() }
}

/// What a disk holds: a checksum of each 64 KiB.
struct Content: Equatable {
  let blocks: [UInt64]

  init(_ bytes: [UInt8]) {
    let size = 64 << 10
    blocks = unsafe bytes.withUnsafeBytes { memory in
      (0..<memory.count / size).map {
        unsafe clinux_xxh3_64(memory.baseAddress! + $0 * size, size)
      }
    }
  }

  /// Blocks that differ.
  func changed(since old: Content) -> Set<Int> {
    Set(blocks.indices.filter { blocks[$0] != old.blocks[$0] })
  }
}

/// Everything of an export.
func copy(_ export: GuestExport, _ guest: TestGuest) throws -> Content {
  let file = guest.folder.file("copy-" + hexadecimal(randomBytes(4)))
  defer { _ = try? removeFile(file) }
  try Shell.run("nbdcopy", export.uri, file)
  return Content(try readFile(file, limit: 1 << 30))
}

/// What an export's bitmap says was written.
func dirtyRanges(_ export: GuestExport) throws -> [Range<Int>] {
  let context = try #require(export.bitmap, "no bitmap: \(export.doubt ?? "")")
  let text = try Shell.run("nbdinfo", "--json", "--map=\(context)", export.uri)
  let extents = try #require(JSONValue(decoding: text.utf8)?.elements)
  return try extents.compactMap { extent -> Range<Int>? in
    let offset = try #require(extent["offset"]?.integer)
    let length = try #require(extent["length"]?.integer)
    return extent["type"]?.integer == 1 ? offset..<offset + length : nil
  }
}

/// Blocks of 64 KiB that ranges touch.
func blocks(_ ranges: [Range<Int>]) -> Set<Int> {
  let size = 64 << 10
  return Set(ranges.flatMap { Array($0.lowerBound / size...($0.upperBound - 1) / size) })
}

/// What passes put into QEMU and is still there.
func leftovers(_ guest: TestGuest) throws -> [String] {
  let monitor = try #require(guest.administrator)
  var names: [String] = []
  for node in try monitor.execute("query-named-block-nodes", ["flat": true]).elements ?? [] {
    names.append(node["node-name"]?.text ?? "")
  }
  for command in ["query-jobs", "query-block-exports"] {
    names += (try monitor.execute(command).elements ?? []).compactMap { $0["id"]?.text }
  }
  names += try namesInDirectory(guest.folder.path)
  return names.filter { $0.hasPrefix("strobe-") }.sorted()
}

/// The bitmaps of all disks: their names' last 24 digits without zeros, with `!` when they don't record.
func bitmaps(_ guest: TestGuest) throws -> [String] {
  let monitor = try #require(guest.administrator)
  var names: [String] = []
  for node in try monitor.execute("query-named-block-nodes", ["flat": true]).elements ?? [] {
    for bitmap in node["dirty-bitmaps"]?.elements ?? [] {
      guard let name = bitmap["name"]?.text, let point = name.split(separator: "-").last else {
        continue
      }
      let digits = point.prefix { $0 != "0" }
      names.append(String(digits) + (bitmap["recording"]?.flag == true ? "" : "!"))
    }
  }
  return names.sorted()
}
