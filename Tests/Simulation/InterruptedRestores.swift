import Engine
import Platform
import TestSupport

// What a restore leaves when it doesn't come to its end, and going on with it.

/// Where a restore writes a file before it gets its name.
func partialPath(_ target: String) -> String {
  let slash = target.lastIndex(of: "/")!
  return "\(target[...slash]).\(target[target.index(after: slash)...]).strobe-partial"
}

/// Removes a restored file, whole or not.
func removeTarget(_ path: String) {
  unlinkFile(path)
  unlinkFile(partialPath(path))
}

extension World {
  func settleRestore(
    _ ending: Ending, _ tolerance: Tolerance, _ what: String, _ targets: [RestoreTarget],
    _ collection: CollectionModel, _ point: PointModel, overwrites: Bool
  ) throws {
    defer { for target in targets { removeTarget(target.path) } }
    var complete = 0
    for target in targets {
      // No name is given to a partial restore, whatever happened.
      if let content = fileContents(target.path), !overwrites || content != [1, 2, 3] {
        try require(content == point.disks[target.disk]!, "\(what), disk \(target.disk): wrong")
        complete += 1
      }
    }
    let partial = targets.filter { fileExists(partialPath($0.path)) }
    switch ending {
    case .returned:
      try require(
        complete == targets.count && partial.isEmpty, "\(what): \(complete) disks, left \(partial)")
    case .failed(let failure): try judge(failure, tolerance, what)
    case .killed: break
    }
    guard !partial.isEmpty, Bool.random(using: &random) else { return }
    try goOn(partial, targets, collection, point, tolerance, what)
  }

  /// Goes on with an interrupted restore: whatever the files hold, and whichever point it was, the content is
  /// right in the end.
  private func goOn(
    _ partial: [RestoreTarget], _ targets: [RestoreTarget], _ collection: CollectionModel,
    _ point: PointModel, _ tolerance: Tolerance, _ what: String
  ) throws {
    var text = "\(what), gone on with"
    if Int.random(in: 0..<3, using: &random) == 0 {
      let victim = partial.randomElement(using: &random)!
      text += ", partial file \(scratch(file: partialPath(victim.path)))"
    }
    var wanted = point
    if Int.random(in: 0..<4, using: &random) == 0 {
      let fitting = collection.points.filter { other in
        targets.allSatisfy { other.disks[$0.disk] != nil }
      }
      wanted = fitting.randomElement(using: &random) ?? point
      text += ", point \(wanted.id.prefix(6))"
    }
    var options = RestoreOptions()
    options.workerCount = 1
    options.resumes = true
    // Some of the files may have their names already.
    options.overwritesFiles = true
    let report: RestoreReport
    do {
      report = try engine().restore(collection.reference(wanted.id), targets, options)
    } catch {
      log.add("  \(text): failed", detail: error.description)
      // The point may be gone, if another operation ran; faults are over.
      var rest = Tolerance()
      rest.isConcurrent = tolerance.isConcurrent
      return try judge(Failure(error), rest, text)
    }
    for (target, disk) in zip(targets, report.disks) {
      try require(
        fileContents(target.path) == wanted.disks[target.disk]!, "\(text), \(target.disk): wrong")
      try require(
        !fileExists(partialPath(target.path)) && disk.damagedRanges.isEmpty
          && 0...disk.size ~= disk.keptBytes + disk.writtenBytes,
        "\(text), \(target.disk): \(disk)")
    }
    let kept = report.disks.reduce(0) { $0 + $1.keptBytes }
    log.add("  \(text): kept \(kept) bytes")
  }
}
