import ChangeTracking
import Glibc
import Platform
import TestSupport

/// A BPF file system of a test's own with a place for pinned trackers, unmounted when let go.
final class PinPlace: Sendable {
  let place: TrackerPlace
  private let folder = TemporaryDirectory(in: "/dev/shm")

  init() { place = TrackerPlace(root: folder.path + "/strobe") }

  deinit {
    // Unmounting drops every pin, and with the pins the programs.
    if (try? Shell.capture(["mountpoint", "-q", folder.path]))?.status == 0 {
      unmount(folder.path)
    }
    _ = try? Shell.run("rm", "-rf", place.lockFolder)
  }

  /// Names of what is pinned.
  var pins: [String] { (try? namesInDirectory(place.root)) ?? [] }
}

/// Whether eBPF trackers can run here.
let canTrack =
  unsafe Machine.hasLoopDevices && access("/sys/kernel/btf/vmlinux", R_OK) == 0

/// The device number of a special file.
func number(_ path: String) throws -> DeviceNumber {
  guard let facts = try FileFacts(path: path), facts.isBlockDevice else {
    throw Shell.Failure(description: "\(path) is no block device")
  }
  return facts.specialDevice
}

/// Marked ranges as an array.
func ranges(_ blocks: MarkedBlocks) -> [Range<Int>] {
  var all: [Range<Int>] = []
  blocks.forEachRange { all.append($0) }
  return all
}
