import BlockDevices
import Platform
import SnapshotRepository

/// Which disks a snapshot takes: those that the collection remembers, changed by what the caller named.
enum DiskSelection {
  static func select(
    remembered: [CollectionRecord.Disk], _ options: SnapshotOptions, collection: String
  ) throws(StrobeError) -> [CollectionRecord.Disk] {
    var disks = remembered
    for name in options.forgottenDisks {
      guard let index = disks.firstIndex(where: { $0.name == name }) else {
        throw StrobeError(
          .notFound, "collection \(collection) remembers no disk \(Names.quoted(name))",
          advice: "it remembers: " + disks.map(\.name).joined(separator: ", "))
      }
      disks.remove(at: index)
    }
    var seen: [String] = []
    for disk in options.disks {
      try Names.check(disk.name, "disk")
      guard !seen.contains(disk.name) else {
        throw StrobeError(
          .usage, "two disks are named \(disk.name)", advice: "give each its own name")
      }
      guard !disk.path.isEmpty else { throw StrobeError(.usage, "disk \(disk.name) has no path") }
      seen.append(disk.name)
      let locator = DiskLocator(disk.path)
      let named = CollectionRecord.Disk(name: disk.name, source: locator.text)
      if case .local(let path) = locator, !disk.path.hasPrefix("raw:"), !disks.contains(named) {
        try DiskSource.refuseAmbiguous(path)
      }
      if let index = disks.firstIndex(where: { $0.name == disk.name }) {
        disks[index] = named
      } else {
        disks.append(named)
      }
    }
    for name in options.idleDisks where !disks.contains(where: { $0.name == name }) {
      throw StrobeError(.notFound, "there is no disk \(Names.quoted(name)) to be idle")
    }
    for name in options.sameDisks where !disks.contains(where: { $0.name == name }) {
      throw StrobeError(
        .notFound, "there is no disk \(Names.quoted(name)) to be taken for the same")
    }
    guard !disks.isEmpty else {
      throw StrobeError(
        .usage, "collection \(collection) has no disks",
        advice: "name them with --disk NAME=PATH")
    }
    return disks
  }

  /// Opens all sources and checks that no two are one.
  static func open(_ disks: [CollectionRecord.Disk], isRemembered: (String) -> Bool)
    throws(StrobeError) -> [DiskSource]
  {
    var sources: [DiskSource] = []
    for (index, disk) in disks.enumerated() {
      let source: DiskSource
      do throws(StrobeError) {
        source = try DiskSource.open(DiskLocator(disk.source))
      } catch {
        guard error.reason == .notFound, isRemembered(disk.name) else { throw error }
        throw error.explained(
          "disk \(disk.name): \(error.message)",
          advice:
            "say where it is with --disk \(disk.name)=PATH, or leave it out with --forget-disk \(disk.name)"
        )
      }
      if let twin = sources.firstIndex(where: { $0.isSame(as: source) }) {
        throw StrobeError(
          .usage,
          "disks \(disks[twin].name) and \(disks[index].name) are the same device, \(disk.source)",
          advice: "name each device once")
      }
      sources.append(source)
    }
    return sources
  }
}
