import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

/// A guest with two qcow2 disks, a raw one and a CD-ROM, and what the test knows of their content.
final class LibvirtGuest {
  static let chunk = 64 << 10
  /// Chunks of each disk.
  static let sizes = ["vda": 256, "vdb": 128, "vdc": 64]
  static let names = ["vda", "vdb", "vdc"]
  static let collection = "0123456789abcdef01234567"

  let rig: LibvirtRig
  let name = "guest"
  /// The byte that each chunk is full of.
  private(set) var content: [String: [UInt8]]
  /// What was written since the test emptied it.
  var written: [String: Set<Int>] = [:]
  /// The run of the guest that points were taken of so far.
  private(set) var run: String?

  init() throws {
    rig = try LibvirtRig()
    content = Self.sizes.mapValues { [UInt8](repeating: 0, count: $0) }
    let images = try [
      rig.makeImage("vda.qcow2", size: "16M"), rig.makeImage("vdb.qcow2", size: "8M"),
      rig.makeImage("vdc.raw", size: "4M", format: "raw"),
      rig.makeImage("cd.iso", size: "1M", format: "raw"),
    ]
    try rig.define(
      name,
      disks: LibvirtRig.disk(images[0], "vda") + LibvirtRig.disk(images[1], "vdb")
        + LibvirtRig.disk(images[2], "vdc", format: "raw")
          + """
          <disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
           <source file='\(images[3])'/><target dev='sda' bus='sata'/><readonly/></disk>
          """)
    try noteRun()
  }

  /// A point was taken of the run that goes on now.
  func noteRun() throws { run = try domain().description.run }

  /// Writes whole chunks, as the guest would.
  func write(_ disk: String, _ byte: UInt8, at chunk: Int, count: Int = 1) throws {
    let index = Self.names.firstIndex(of: disk)!
    try rig.virsh(
      "qemu-monitor-command", name, "--hmp",
      "qemu-io -d /machine/peripheral/virtio-disk\(index)/virtio-backend "
        + "\"write -P \(byte) \(chunk * Self.chunk) \(count * Self.chunk)\"")
    for position in chunk..<chunk + count {
      content[disk]![position] = byte
      written[disk, default: []].insert(position)
    }
  }

  /// Until then a crash of QEMU loses what was written.
  func flush() throws {
    for index in Self.names.indices {
      try rig.virsh(
        "qemu-monitor-command", name, "--hmp",
        "qemu-io -d /machine/peripheral/virtio-disk\(index)/virtio-backend flush")
    }
  }

  func writeAtRandom(_ generator: inout SeededGenerator, times: Int = 4) throws {
    for _ in 0..<times {
      let disk = Self.names.randomElement(using: &generator)!
      let count = Int.random(in: 1...5, using: &generator)
      let chunk = Int.random(in: 0...Self.sizes[disk]! - count, using: &generator)
      try write(disk, .random(in: 1...255, using: &generator), at: chunk, count: count)
    }
  }

  func domain() throws -> LibvirtDomain { try LibvirtDomain(connecting: rig.uri, domain: name) }

  func request(
    _ point: Int, parent: Int? = nil, disks: [String] = names, counts: Bool = true,
    scratch: String? = nil
  ) -> GuestPassRequest {
    GuestPassRequest(
      collection: Self.collection, point: Self.point(point), parent: parent.map(Self.point),
      parentRun: run, disks: disks,
      scratchFolder: scratch ?? rig.scratch, mayPause: false, countsChanges: counts,
      stop: CancellationFlag())
  }

  static func point(_ number: Int) -> String {
    let digits = String(number, radix: 16)
    // Distinct in the first digits, as the engine's are.
    return digits + String(repeating: "0", count: 24 - digits.count)
  }

  static func checkpoint(_ number: Int) -> String { "strobe-\(collection)-\(point(number))" }

  func checkpoints() throws -> [String] {
    try rig.virsh("checkpoint-list", name, "--name").split(whereSeparator: \.isNewline)
      .map(String.init).filter { !$0.isEmpty }.sorted()
  }

  func hasJob() throws -> Bool {
    try !rig.virsh("domjobinfo", name).contains("None")
  }

  /// Whether a backup job runs, or files of one are left.
  func hasTraces() throws -> Bool {
    try (try? rig.virsh("backup-dumpxml", name)) != nil || !namesInDirectory(rig.scratch).isEmpty
  }

  /// What an export holds, a byte for each chunk; nil for a chunk of several.
  func read(_ export: GuestExport) throws -> [UInt8?] {
    let path = rig.folder.file("copy-\(export.disk)")
    defer { _ = unsafe unlink(path) }
    try Shell.run("nbdcopy", export.uri, path)
    let bytes = try readFile(path)
    return stride(from: 0, to: bytes.count, by: Self.chunk).map { start in
      let chunk = bytes[start..<start + Self.chunk]
      return chunk.allSatisfy { $0 == chunk[start] } ? chunk[start] : nil
    }
  }

  /// The chunks that an export's bitmap calls dirty.
  func changed(_ export: GuestExport) throws -> Set<Int> {
    let bitmap = try #require(export.bitmap)
    let map = try Shell.run("nbdinfo", "--json", "--map=\(bitmap)", export.uri)
    var chunks: Set<Int> = []
    for extent in JSONValue(decoding: map.utf8)?.elements ?? [] {
      guard let offset = extent["offset"]?.integer, let length = extent["length"]?.integer,
        extent["type"]?.integer == 1
      else { continue }
      for chunk in offset / Self.chunk..<(offset + length + Self.chunk - 1) / Self.chunk {
        chunks.insert(chunk)
      }
    }
    return chunks
  }

  /// Expects the exports to hold the content of the cut, and to call exactly those chunks changed.
  ///
  /// - Parameter changes: nil where a disk has to be read whole.
  func expect(
    _ exports: [GuestExport], hold content: [String: [UInt8]], changes: [String: Set<Int>?],
    location: SourceLocation = #_sourceLocation
  ) throws {
    for export in exports {
      let found = try read(export)
      #expect(
        found == content[export.disk]!.map(Optional.some), "\(export.disk)",
        sourceLocation: location)
      guard let expected = changes[export.disk] ?? nil else {
        #expect(export.bitmap == nil, "\(export.disk)", sourceLocation: location)
        continue
      }
      #expect(export.doubt == nil, "\(export.disk)", sourceLocation: location)
      #expect(try changed(export) == expected, "\(export.disk)", sourceLocation: location)
    }
  }
}
