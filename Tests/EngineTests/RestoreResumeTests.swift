import CLinux
import Engine
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@Suite("A restore that goes on")
struct RestoreResumeTests {
  private static let chunkSize = 4096

  /// Bytes of chunks that are equal in both, and of those of `wanted` that aren't and hold content.
  private func compare(_ wanted: [UInt8], _ found: [UInt8]) -> (kept: Int, written: Int) {
    var (kept, written) = (0, 0)
    for start in stride(from: 0, to: wanted.count, by: Self.chunkSize) {
      let end = min(start + Self.chunkSize, wanted.count)
      let chunk = wanted[start..<end]
      let has = start < found.count ? found[start..<min(end, found.count)] : []
      // What is missing at the end is zeros when the file was made long enough.
      let padded = Array(has) + [UInt8](repeating: 0, count: chunk.count - has.count)
      if padded == Array(chunk) {
        kept += chunk.count
      } else if chunk.contains(where: { $0 != 0 }) {
        written += chunk.count
      }
    }
    return (kept, written)
  }

  @Test(
    "Whatever was there before, the result is the point, and only what differs is written",
    arguments: 0..<12)
  func anything(seed: Int) throws {
    let folder = TemporaryDirectory(in: "/dev/shm")
    let engine = try SnapshotEngine.create(at: folder.file("repository"), chunkSize: Self.chunkSize)
    var random = SeededGenerator(seed: UInt64(3000 + seed))
    let disk = try DiskModel(folder.file("disk"), size: 700 * 512 * (1 + seed % 3))
    var options = SnapshotOptions()
    options.disks = [.init(name: "d", path: disk.path)]
    var points: [(id: String, content: [UInt8])] = []
    for _ in 0..<3 {
      disk.change(&random)
      points.append((try engine.snapshot("m", options).point.id, disk.content))
    }
    let target = folder.file("target")
    let partial = folder.file(".target.strobe-partial")
    var resume = RestoreOptions()
    resume.resumes = true
    for _ in 0..<8 {
      // Any state of the disk, changed once more, holes and all.
      try? removeFile(partial)
      let before = try DiskModel(partial, size: disk.content.count)
      before.write(points.randomElement(using: &random)!.content, at: 0)
      before.change(&random)
      let point = points.randomElement(using: &random)!
      resume.workerCount = Int.random(in: 1...3, using: &random)
      let report = try engine.restore(
        PointReference("m", id: point.id), [RestoreTarget(disk: "d", path: target)], resume)
      #expect(try contents(target) == point.content)
      let expected = compare(point.content, before.content)
      #expect(report.disks[0].keptBytes == expected.kept)
      #expect(report.disks[0].writtenBytes == expected.written)
      #expect(try FileFacts(path: partial) == nil)
      try removeFile(target)
    }
  }

  @Test("Progress comes to its end, gone on or not", arguments: [false, true])
  func progress(resumes: Bool) throws {
    let test = try InterruptedDisk(seed: 3100)
    let point = try test.snapshot().point
    let progress = Progress()
    var options = RestoreOptions()
    options.resumes = resumes
    let target = test.folder.file("target")
    let report = try test.engine.restore(
      PointReference("m", id: point.id), [RestoreTarget(disk: "d", path: target)], options,
      progress: progress)
    #expect(progress.fraction == 1)
    #expect(
      report.disks[0].keptBytes
        == (resumes ? test.disk.content.count - report.disks[0].writtenBytes : 0))
    #expect(try contents(target) == test.disk.content)
  }

  @Test("A chunk that is damaged in the repository does no harm where the target holds it already")
  func damagedChunk() throws {
    let test = try InterruptedDisk(seed: 3200)
    let point = try test.snapshot().point
    let reference = PointReference("m", id: point.id)
    let target = test.folder.file("target")
    let partial = test.folder.file(".target.strobe-partial")
    try writeBytes([1], to: try #require(test.files("segments").first), at: 4 << 20)
    var options = RestoreOptions()
    #expect(throws: StrobeError.self) {
      try test.engine.restore(reference, [RestoreTarget(disk: "d", path: target)], options)
    }
    options.resumes = true
    // What was there is kept; where nothing was, and nothing was written before the error, nothing is.
    try Shell.run("truncate", "--size=\(test.disk.content.count)", partial)
    let error = #expect(throws: StrobeError.self) {
      try test.engine.restore(reference, [RestoreTarget(disk: "d", path: target)], options)
    }
    #expect(error?.advice?.contains("kept as \(partial): go on with --resume") == true)
    try Shell.run("cp", test.disk.path, partial)
    let report = try test.engine.restore(
      reference, [RestoreTarget(disk: "d", path: target)], options)
    #expect(report.disks[0].writtenBytes == 0)
    #expect(try contents(target) == test.disk.content)
  }
}

extension Progress {
  fileprivate var fraction: Double {
    Double(doneBytes.load(ordering: .relaxed)) / Double(totalBytes.load(ordering: .relaxed))
  }
}
