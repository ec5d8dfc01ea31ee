import CBPF
import CChangeTracker
import Glibc
import Platform

/// The tracker's programs and maps in the kernel: of this process alone, or pinned.
final class ProgramSet: Sendable {
  /// The programs in tracker.bpf.c.
  static let programs = [
    "strobe_queue", "strobe_request1", "strobe_request2", "strobe_request3", "strobe_bio",
  ]
  /// Those whose being skipped once may hide a write to a bio-based disk.
  private static let watched = ["strobe_queue", "strobe_bio"]

  let maps: TrackerMaps
  let identity: SetIdentity
  /// Keep the programs attached; empty for a pinned set, which its pins keep.
  private let links: [KernelObject]
  private let watchedPrograms: [KernelObject]
  /// The kernel's numbers of the programs, in the order of ``programs``.
  let programNumbers: [UInt32]

  init(
    maps: TrackerMaps, identity: SetIdentity, links: [KernelObject],
    programs: [KernelObject], programNumbers: [UInt32]
  ) {
    self.programNumbers = programNumbers
    self.maps = maps
    self.identity = identity
    self.links = links
    watchedPrograms = zip(Self.programs, programs).filter { Self.watched.contains($0.0) }.map(\.1)
  }

  /// How often the kernel skipped one of the programs that must see every bio; nil when it doesn't say.
  var skips: UInt64? {
    var sum: UInt64 = 0
    for program in watchedPrograms {
      guard let skips = program.skips else { return nil }
      sum += skips
    }
    return sum
  }

  /// Loads the programs and attaches them. Takes some tens of milliseconds, most of it libbpf's reading
  /// of the kernel's type information.
  ///
  /// - Parameter pendingLimit: how many writes to bio-based disks may be in flight; nil: as many as
  ///   tracker.bpf.c says, which takes a table of 1.5 MiB.
  convenience init(pendingLimit: Int?) throws(StrobeError) {
    let loaded = try LibraryMessages.capturing { () throws(StrobeError) in
      try LoadedObject(pendingLimit)
    }
    let maps = try TrackerMaps { name throws(StrobeError) in try loaded.map(name) }
    let links = loaded.links
    var ids: [UInt32] = []
    var numbers: [UInt32] = []
    for link in links {
      let info = try link.linkInfo()
      ids.append(info.id)
      numbers.append(info.program)
    }
    let identity = SetIdentity(generation: randomBytes(16), links: ids)
    try maps.writeIdentity(identity)
    self.init(
      maps: maps, identity: identity, links: links, programs: loaded.programs,
      programNumbers: numbers)
  }

  func pinLinks(_ path: (String) -> String) throws(StrobeError) {
    for (name, link) in zip(Self.programs, links) { try link.pin(path(name)) }
  }
}

/// libbpf's object, from loading to the end of taking descriptors out of it.
@safe private final class LoadedObject {
  private let object: OpaquePointer
  private(set) var links: [KernelObject] = []
  private(set) var programs: [KernelObject] = []

  init(_ pendingLimit: Int?) throws(StrobeError) {
    guard unsafe access("/sys/kernel/btf/vmlinux", R_OK) == 0 else {
      throw StrobeError(
        .refused, "changes can't be tracked: the kernel has no type information (BTF)",
        advice: "use a kernel with CONFIG_DEBUG_INFO_BTF")
    }
    var size = 0
    let bytes = unsafe cchange_tracker_object(&size)
    guard let object = unsafe bpf_object__open_mem(bytes, size, nil) else {
      throw Self.failure(errno, "bpf_object__open")
    }
    unsafe self.object = object
    if let pendingLimit {
      let map = unsafe bpf_object__find_map_by_name(object, "pending")
      unsafe _ = bpf_map__set_max_entries(map, UInt32(pendingLimit))
    }
    let result = unsafe bpf_object__load(object)
    guard result == 0 else { throw Self.failure(-result, "bpf_object__load") }
    for name in ProgramSet.programs {
      let program = unsafe bpf_object__find_program_by_name(object, name)
      guard let link = unsafe bpf_program__attach(program) else {
        throw Self.failure(errno, "bpf_program__attach")
      }
      defer { unsafe _ = bpf_link__destroy(link) }
      links.append(try Self.duplicate(unsafe bpf_link__fd(link)))
      programs.append(try Self.duplicate(unsafe bpf_program__fd(program)))
    }
  }

  deinit { unsafe bpf_object__close(object) }

  func map(_ name: String) throws(StrobeError) -> KernelObject {
    let number = unsafe bpf_object__find_map_fd_by_name(object, name)
    return KernelObject(
      owning: try systemCall("dup", name) { fcntl(number, F_DUPFD_CLOEXEC, 3) })
  }

  private static func duplicate(_ number: Int32) throws(StrobeError) -> KernelObject {
    let copy = try systemCall("dup", "eBPF program") { fcntl(number, F_DUPFD_CLOEXEC, 3) }
    return KernelObject(owning: copy)
  }

  private static func failure(_ code: Int32, _ call: String) -> StrobeError {
    let error = StrobeError.system(code, call: call, object: "eBPF")
    if code == EPERM || code == EACCES {
      return error.explained(
        "changes can't be tracked: eBPF is not permitted", advice: "run it as root")
    }
    let said = LibraryMessages.last
    return error.explained("changes can't be tracked: \(said.isEmpty ? error.message : said)")
  }
}
