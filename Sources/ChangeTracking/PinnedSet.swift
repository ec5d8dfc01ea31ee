import CBPF
import Glibc
import Platform

/// Why a pinned tracker can't be believed.
struct TrackerDoubt: Error {
  let reason: String
}

/// The program set whose pins lie in a folder of the BPF file system.
enum PinnedSet {
  /// Opens the set and makes sure that it is whole: every pin there, each link the one that was made with
  /// the set, its program attached.
  ///
  /// - Throws: ``TrackerDoubt``, which says what is missing.
  static func open(_ place: TrackerPlace) throws(TrackerDoubt) -> ProgramSet {
    do throws(StrobeError) {
      let maps = try TrackerMaps { name throws(StrobeError) in try pin(place.map(name)) }
      guard let identity = try maps.readIdentity() else {
        throw StrobeError(.notFound, "its program was never complete, or is of another version")
      }
      var programs: [KernelObject] = []
      var numbers: [UInt32] = []
      for (name, id) in zip(ProgramSet.programs, identity.links) {
        let path = place.link(name)
        let number = try link(path, id)
        numbers.append(number)
        let program = try bpfCall("bpf_prog_get_fd_by_id", path) { bpf_prog_get_fd_by_id(number) }
        programs.append(KernelObject(owning: program))
      }
      return ProgramSet(
        maps: maps, identity: identity, links: [], programs: programs, programNumbers: numbers)
    } catch {
      throw TrackerDoubt(reason: error.message)
    }
  }

  /// Looks again at what keeps the programs attached.
  static func checkLinks(_ place: TrackerPlace, _ identity: SetIdentity) throws(TrackerDoubt) {
    do throws(StrobeError) {
      for (name, id) in zip(ProgramSet.programs, identity.links) {
        _ = try link(place.link(name), id)
      }
    } catch {
      throw TrackerDoubt(reason: error.message)
    }
  }

  private static func pin(_ path: String) throws(StrobeError) -> KernelObject {
    guard let object = try KernelObject(pinned: path) else {
      throw StrobeError(.notFound, "its pin \(path) is gone")
    }
    return object
  }

  /// - Returns: the kernel's number of the link's program.
  private static func link(_ path: String, _ id: UInt32) throws(StrobeError) -> UInt32 {
    let info = try pin(path).linkInfo()
    guard info.id == id, info.program != 0 else {
      throw StrobeError(.notFound, "its pin \(path) is another's")
    }
    return info.program
  }

  /// The set that is there, or a new one when there is none or it isn't whole. Windows of an old one stay
  /// pinned: their generation tells that nobody writes to them any more.
  static func openOrMake(_ place: TrackerPlace) throws(StrobeError) -> ProgramSet {
    do throws(TrackerDoubt) { return try open(place) } catch {
      try remove(place)
      let set = try ProgramSet(pendingLimit: nil)
      try set.maps.disks.pin(place.map("disks"))
      try set.maps.bitmaps.pin(place.map("bitmaps"))
      try set.maps.pending.pin(place.map("pending"))
      try set.pinLinks(place.link)
      // Last: what opens has all of the others.
      try set.maps.identity.pin(place.map("identity"))
      return set
    }
  }

  /// Removes the set's pins; links first, so that a half-removed set marks nothing that looks whole.
  static func remove(_ place: TrackerPlace) throws(StrobeError) {
    try removeFile(place.map("identity"))
    for name in ProgramSet.programs { try removeFile(place.link(name)) }
    for name in TrackerMaps.names { try removeFile(place.map(name)) }
  }
}
