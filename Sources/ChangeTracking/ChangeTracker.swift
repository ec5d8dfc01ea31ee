import CBPF
import Glibc
package import Platform
import Synchronization

/// Knows which blocks of a disk or partition were written since it was asked last.
///
/// An eBPF program on the kernel's block tracepoints keeps a bitmap for each tracked device. A *transient*
/// tracker lives as long as this object and at most as long as its process; a *pinned* one lives in the BPF
/// file system until it is stopped or the machine restarts.
///
/// What it says is a hint: look at ``lossReason`` before and after believing it. Methods may be called
/// from any thread; one thread at a time should call ``exchange()``.
package final class ChangeTracker: Sendable {
  let geometry: TrackerGeometry
  let memory: TrackerMemory
  /// Nil when the set can't be opened any more.
  let set: ProgramSet?
  let isBioBased: Bool
  /// Nil for a transient tracker.
  let place: TrackerPlace?
  /// Held while a pass uses a pinned tracker.
  private let lock: FileDescriptor?
  /// What was found wrong when it was opened.
  private let openingDoubt: String?
  /// Tells this user of the marks from another: locks keep two apart, but not two that see other lock
  /// folders, as a container with a `/run` of its own does.
  private let owner = UInt64.random(in: 1...UInt64.max)
  private let hasExchanged = Atomic<Bool>(false)
  private let isShared = Atomic<Bool>(false)

  init(
    geometry: TrackerGeometry, memory: TrackerMemory, set: ProgramSet?, isBioBased: Bool,
    place: TrackerPlace?, lock: consuming FileDescriptor?, doubt: String?
  ) {
    self.geometry = geometry
    self.memory = memory
    self.set = set
    self.isBioBased = isBioBased
    self.place = place
    self.lock = lock
    openingDoubt = doubt
  }

  deinit {
    // The set of a transient tracker may live on with its siblings.
    guard place == nil, let set else { return }
    try? set.maps.disconnect(geometry.disk, slot: UInt32(memory[HeaderWord.slot]))
  }

  /// The tracked disk or partition.
  package var device: DeviceNumber { geometry.device }
  package var isPinned: Bool { place != nil }
  /// Bytes of the source that one bit stands for.
  package var blockSize: Int { geometry.blockSize }
  /// Bytes of the source.
  package var size: Int { geometry.size }

  /// 32 hexadecimal digits, random.
  package var id: String { hexadecimal(memory.bytes(at: HeaderWord.tracker, words: 2)) }

  /// The kernel's numbers of the programs that mark for it, as `bpftool prog` shows them.
  package var programNumbers: [UInt32] { self.set?.programNumbers ?? [] }

  /// Whether the kernel has a program of that number.
  package static func programExists(_ number: UInt32) -> Bool {
    let descriptor = bpf_prog_get_fd_by_id(number)
    if descriptor >= 0 { close(descriptor) }
    return descriptor >= 0
  }

  /// When it was started, in nanoseconds since 1970.
  package var startedAtNanoseconds: Int { Int(memory[HeaderWord.startedAt]) }

  /// Why what it marked can't be believed to be complete, or nil. Looked at anew with each call, which
  /// costs a few small reads of sysfs and, for a pinned tracker, of the BPF file system.
  package var lossReason: String? {
    if let openingDoubt { return openingDoubt }
    if isUsedByAnother { return "another process used it at the same time" }
    if let doubt = deviceDoubt { return doubt }
    guard let place, let set else { return nil }
    do throws(TrackerDoubt) { try PinnedSet.checkLinks(place, set.identity) } catch {
      return error.reason
    }
    return nil
  }

  /// Says whose exchange it is, and finds out whether somebody else's came between.
  func noteOwner() {
    let last = memory.exchange(HeaderWord.owner, owner)
    let isFirst = !hasExchanged.exchange(true, ordering: .sequentiallyConsistent)
    if !isFirst && last != owner { isShared.store(true, ordering: .sequentiallyConsistent) }
  }

  private var isUsedByAnother: Bool {
    if isShared.load(ordering: .sequentiallyConsistent) { return true }
    return hasExchanged.load(ordering: .sequentiallyConsistent)
      && memory[HeaderWord.owner] != owner
  }

  private var deviceDoubt: String? {
    guard let now = TrackedDevice(device) else { return "the device is gone" }
    if now.disk != geometry.disk || now.diskSequence != memory[HeaderWord.diskSequence] {
      return "another disk has taken the device's place"
    }
    if now.startSector != geometry.startSector { return "the partition begins elsewhere now" }
    if now.sectorCount != geometry.sectorCount {
      return "its size was \(geometry.size) bytes and is \(now.sectorCount << 9) bytes"
    }
    return nil
  }

  // MARK: The restore point that it counts from

  /// Nil when it counts from no point: just started, or a pass was interrupted.
  package var base: TrackerBase? {
    let seal = memory[HeaderWord.baseSeal]
    guard seal != 0 else { return nil }
    let record = memory.bytes(at: HeaderWord.base, words: TrackerBase.recordLength / 8)
    return TrackerBase.seal(record) == seal ? TrackerBase(record: record) : nil
  }

  /// Nil means that a pass is in progress: if it dies now, the next one must read everything.
  package func setBase(_ base: TrackerBase?) {
    // Not valid while it is being written.
    memory[HeaderWord.baseSeal] = 0
    guard let base else { return }
    let record = base.record
    memory.set(record, at: HeaderWord.base)
    memory[HeaderWord.baseSeal] = TrackerBase.seal(record)
  }
}

extension TrackerMemory {
  /// Words as little-endian bytes.
  func bytes(at index: Int, words: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    for word in index..<index + words { bytes.append(littleEndian: self[word]) }
    return bytes
  }

  func set(_ bytes: [UInt8], at index: Int) {
    for word in 0..<bytes.count / 8 { self[index + word] = bytes.littleEndian(at: word * 8) }
  }
}
