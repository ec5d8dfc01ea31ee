import Glibc
import Platform
import SnapshotRepository
import TestSupport
import Testing

/// Documents that speak of guests: format 3. `STROBE_WRITE_GOLDEN=1 swift test --filter GuestDocument` writes the golden
/// files anew: only for a new version of the format.
@Suite("Format 3")
struct GuestDocumentTests {
  private static let folder = parentDirectory(GoldenInputs.folder) + "/format-3"
  private static let writes = unsafe getenv("STROBE_WRITE_GOLDEN") != nil

  private static func collection() throws -> CollectionRecord {
    var guest = GuestRecord()
    guest.agent = "/run/vm1.qga"
    guest.scratch = "/var/tmp"
    guest.excludedDisks = ["swap"]
    guest.hooksBringRest = true
    return try GoldenInputs.collection().remembering(
      [.init(name: "vd0", source: "qemu:/run/vm1.qmp#vd0")], guest)
  }

  private static func point() throws -> RestorePoint {
    let disk = DiskRestorePoint(
      name: "vd0", source: "qemu:/run/vm1.qmp#vd0", identity: "file:inode:7:born:1.2", size: 20_480,
      logicalSectorSize: 512, changeSource: .qemuBitmap, cut: .hypervisor, newChainReason: nil,
      changedChunks: 3, clearedChunks: 1, changedBytes: 8192, storedBytes: 4321, readBytes: 12_288,
      layers: [GoldenInputs.pass(1).object(0).description])
    let created = GoldenInputs.created
    return RestorePoint(
      id: GoldenInputs.pass(2).description, collection: try collection(), sequence: 2,
      parent: GoldenInputs.pass(1).description, created: created,
      finished: Timestamp(nanoseconds: created.nanoseconds + 1_500_000_000),
      consistency: .applicationConsistent, consistencyReasons: [], freezeWindowMilliseconds: 12.5,
      frozen: [
        FrozenFileSystem(
          mountPoint: "guest", fileSystem: "guest agent /run/vm1.qga", freezeMilliseconds: 9)
      ],
      machine: MachineRecord(
        hypervisor: "QEMU 7.2.22", name: "vm1", uuid: "b9a3b4b2-0000-4000-8000-000000000001",
        way: "reopen", configuration: "<domain type='kvm'>\n  <name>Ä</name>\n</domain>\n"),
      disks: [disk], writer: "strobe 0.1.0")
  }

  private func expect(_ bytes: [UInt8], _ name: String) throws {
    let path = Self.folder + "/" + name
    if Self.writes {
      try makeDirectories(Self.folder, mode: 0o755)
      try? removeFile(path)
      let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
      try unsafe bytes.withBytes { (bytes) throws(StrobeError) in
        try unsafe file.write(bytes, at: 0)
      }
    }
    #expect(try readFile(path) == bytes, "\(name) is written otherwise than by format 3")
  }

  @Test("are written byte for byte and read back equal")
  func golden() throws {
    try expect(Document.encode(Self.collection()), "collection.json")
    try expect(Document.encode(Self.point()), "point.json")
    let bytes = try readFile(Self.folder + "/point.json")
    #expect(try Document.decode(RestorePoint.self, bytes, name: "x") == Self.point())
    let record = try readFile(Self.folder + "/collection.json")
    #expect(try Document.decode(CollectionRecord.self, record, name: "x") == Self.collection())
  }

  private struct Version: Decodable { let format: Int }

  private func format(_ bytes: [UInt8]) throws(StrobeError) -> Int {
    let version = try Document.decode(Version.self, bytes, name: "x")
    return version.format
  }

  @Test(
    "have format 3; a collection that has no guest any more keeps it, one that never had has format 1"
  )
  func formats() throws {
    let plain = try GoldenInputs.collection()
    #expect(try format(Document.encode(plain)) == 1)
    #expect(try format(Document.encode(plain.remembering(plain.disks))) == 1)
    let guest = try Self.collection()
    #expect(try format(Document.encode(guest)) == 3)
    #expect(try format(Document.encode(guest.remembering(plain.disks))) == 3)
    #expect(try format(Document.encode(Self.point())) == 3)
    #expect(try format(Document.encode(GoldenInputs.point())) == 1)
  }
}
