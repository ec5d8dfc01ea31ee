import BlockDevices
import Platform
import SnapshotRepository
import VirtualMachines

/// A running guest whose disks are taken through its hypervisor, from the choice of the disks to the commit.
final class GuestSession {
  let locator: GuestLocator
  let machine: any GuestMachine
  /// The disks of the pass, in order.
  let disks: [GuestDisk]
  private(set) var warnings: [String]
  private var pass: (any GuestPass)?
  /// Disks whose record of changes turned out to miss some.
  var discredited: Set<String> = []

  /// - Parameter remembered: the names of the disks that the collection knows.
  init(
    _ locator: GuestLocator, remembered: [String], excluded: [String], stop: CancellationFlag
  ) throws(StrobeError) {
    self.locator = locator
    machine = try locator.connect(stop: stop)
    (disks, warnings) = try GuestDiskChoice.choose(
      machine.disks, of: locator, remembered: remembered, excluded: excluded)
  }

  /// As the collection remembers them.
  var records: [CollectionRecord.Disk] {
    disks.map { .init(name: $0.name, source: locator.text(ofDisk: $0.name)) }
  }

  /// As sources, which can't be read before the cut.
  func sources() throws(StrobeError) -> [DiskSource] {
    var sources: [DiskSource] = []
    for disk in disks {
      guard disk.size > 0, disk.size % 512 == 0 else {
        throw StrobeError(
          .usage, "disk \(disk.name) has \(disk.size) bytes, which is no whole number of sectors")
      }
      sources.append(
        DiskSource(
          guestDisk: locator.text(ofDisk: disk.name), size: disk.size,
          identity: try Self.identity(disk)))
    }
    return sources
  }

  /// The same as when the guest is off and its image is taken: then the chain goes on.
  private static func identity(_ disk: GuestDisk) throws(StrobeError) -> String {
    guard let storage = disk.storage, storage.hasPrefix("/"),
      let facts = try FileFacts(path: storage), facts.isRegularFile || facts.isBlockDevice
    else { return disk.identity }
    return DiskIdentity(of: facts).text
  }

  /// Clears up what earlier passes left, and makes everything ready for the cut.
  func begin(_ request: GuestPassRequest) throws(StrobeError) -> any GuestPass {
    let pass = try machine.begin(request)
    self.pass = pass
    return pass
  }

  /// The point is durable.
  ///
  /// - Returns: what went wrong: the next pass clears it up.
  func committed() -> [String] {
    guard let pass else { return [] }
    do throws(StrobeError) {
      try pass.commit(discredited: discredited)
      return []
    } catch {
      return ["the point is there, but its record of changes was not begun: \(error.message)"]
    }
  }

  /// The pass failed: the guest runs as before it, and what counts from the parent is complete again.
  ///
  /// - Returns: the error, with what could not be cleared up.
  func givenBack(_ error: StrobeError) -> StrobeError {
    guard let pass else { return error }
    var text: [String] = []
    do throws(StrobeError) { try pass.close() } catch {
      text.append("what the pass made in the guest's hypervisor was not removed: \(error.message)")
    }
    do throws(StrobeError) { try pass.giveBack() } catch {
      text.append("the record of changes was not given back: \(error.message)")
    }
    guard !text.isEmpty else { return error }
    let kept = text.joined(separator: "; ") + "; the next snapshot clears it up"
    return error.explained(error.message, advice: error.advice.map { "\($0); \(kept)" } ?? kept)
  }
}
