import Platform
import SnapshotRepository
import VirtualMachines

/// Which disks of a guest a pass takes.
enum GuestDiskChoice {
  /// - Parameters:
  ///   - all: the disks that the guest has.
  ///   - remembered: the names of the disks that the collection knows.
  /// - Returns: those that are taken, and what the reader should know of the others.
  static func choose(
    _ all: [GuestDisk], of locator: GuestLocator, remembered: [String], excluded: [String]
  ) throws(StrobeError) -> ([GuestDisk], warnings: [String]) {
    for name in excluded
    where !all.contains(where: { $0.name == name }) && !remembered.contains(name) {
      throw StrobeError(
        .notFound, "\(locator.description) has no disk \(Names.quoted(name)) to be excluded",
        advice: "its disks are: " + all.map(\.name).joined(separator: ", "))
    }
    let disks = all.filter { !excluded.contains($0.name) }
    guard !disks.isEmpty else {
      throw StrobeError(.usage, "\(locator.description) has no disk that could be taken")
    }
    for disk in disks {
      if let obstacle = disk.obstacle {
        throw StrobeError(
          .refused, "disk \(disk.name): \(obstacle)",
          advice: "or leave it out: --exclude-disk \(disk.name)")
      }
    }
    let names = disks.map(\.name)
    // A guest gains and loses disks; its points follow.
    var warnings = remembered.filter { !names.contains($0) && !excluded.contains($0) }.map {
      "\(locator.description) has no disk \($0) any more; it is left out"
    }
    if !remembered.isEmpty {
      warnings += names.filter { !remembered.contains($0) }.map {
        "\(locator.description) has a new disk \($0); it is taken, too"
      }
    }
    return (disks, warnings)
  }
}
