import Engine
import Glibc
import TestSupport
import Testing

@Suite("The head table is a cache that nobody has to trust")
struct HeadTableTests {
  private let folder = TemporaryDirectory(in: "/dev/shm")
  private let engine: SnapshotEngine
  private let disk: DiskModel

  init() throws {
    engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: 4096)
    disk = try DiskModel(folder.file("disk"), size: 1 << 20)
    var random = SeededGenerator(seed: 1)
    disk.write(random.bytes(1 << 20), at: 0)
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    _ = try engine.snapshot("m", options)
  }

  private var table: String { folder.file("repository/cache/m/d.fingerprints") }

  private func snapshotAndCompare(changed: Int) throws {
    let point = try engine.snapshot("m").point
    #expect(point.disks[0].changedChunks == changed)
    let target = folder.file("restored")
    _ = try engine.restore(
      PointReference("m", id: point.id), [RestoreTarget(disk: "d", path: target)])
    #expect(try contents(target) == disk.content)
    unsafe unlink(target)
  }

  @Test("Deleted, it is made again from the layers") func deleted() throws {
    unsafe unlink(table)
    disk.write([1], at: 5000)
    try snapshotAndCompare(changed: 1)
    disk.write([2], at: 5000)
    try snapshotAndCompare(changed: 1)
  }

  @Test("A page of it that was lost doesn't hide that content became zeros") func lostPage() throws
  {
    // A block of fingerprints reads as zeros after a crash: "these chunks are zeros".
    let file = unsafe open(table, O_WRONLY | O_CLOEXEC)
    let zeros = [UInt8](repeating: 0, count: 4096)
    #expect(unsafe pwrite(file, zeros, 4096, 8192) == 4096)
    close(file)
    disk.punch(0..<4096)
    try snapshotAndCompare(changed: 1)
  }

  @Test("That of an older point is not taken for the parent's") func stale() throws {
    try Shell.run("cp", table, folder.file("old"))
    disk.write([9], at: 0)
    try snapshotAndCompare(changed: 1)
    try Shell.run("cp", folder.file("old"), table)
    // Back to what the old table says: unchanged against it, changed against the parent.
    var random = SeededGenerator(seed: 1)
    disk.write(random.bytes(1), at: 0)
    try snapshotAndCompare(changed: 1)
  }

  @Test("The newest point deleted, the one before is the parent") func newestDeleted() throws {
    disk.write([1, 2, 3], at: 40_000)
    let point = try engine.snapshot("m").point
    try engine.delete([PointReference("m", id: point.id)])
    _ = try engine.collectGarbage()
    try snapshotAndCompare(changed: 1)
    #expect(try engine.verify().damage.isEmpty)
  }

  @Test("Where it can't be written the point is there all the same") func unwritable() throws {
    try Shell.run("rm", "-rf", folder.file("repository/cache"))
    try Shell.run("touch", folder.file("repository/cache"))
    disk.write([1], at: 0)
    let report = try engine.snapshot("m")
    #expect(report.warnings.count == 1)
    #expect(report.point.disks[0].changedChunks == 1)
    unsafe unlink(folder.file("repository/cache"))
    try snapshotAndCompare(changed: 0)
  }
}
