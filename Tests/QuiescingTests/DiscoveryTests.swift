import BlockDevices
import Platform
import Quiescing
import TestSupport
import Testing

@Suite("File systems on disks", .enabled(if: Needs.systems, Needs.comment))
struct DiscoveryTests {
  private let systems = TestFileSystems()

  @Test(
    "A mounted device is found from the device and from its image",
    arguments: ["ext4", "xfs", "btrfs"])
  func plain(kind: String) throws {
    let system = try systems.fileSystem(kind)
    for path in [system.device, system.image] {
      let result = try found(on: [path])
      try #require(result.count == 1)
      #expect(result[0].mountPoint == system.mountPoint && result[0].fileSystem == kind)
      #expect(result[0].members == [try deviceNumber(system.device)])
      #expect(result[0].sources == [0] && result[0].isReachable)
    }
  }

  @Test("An unmounted device, a read-only mount and the holder of an image are left out")
  func nothing() throws {
    let system = try systems.fileSystem("ext4")
    try #require(try found(on: [system.device]).count == 1)
    try Shell.run("mount", "-o", "remount,ro", system.mountPoint)
    #expect(try found(on: [system.device]).isEmpty)
    try Shell.run("mount", "-o", "remount,rw", system.mountPoint)
    let image = try systems.image(8, in: system.mountPoint)
    #expect(try found(on: [image]).isEmpty)
    try systems.unmountNow(system.mountPoint)
    #expect(try found(on: [system.device, system.image]).isEmpty)
  }

  @Test(
    "A disk has what is on its partitions; a partition has its own only",
    .enabled(if: Machine.has("sfdisk", "partx"), "needs sfdisk"))
  func partitions() throws {
    let disk = try systems.loop(on: try systems.image(64), partitions: true)
    let script = "printf 'label: gpt\\nsize=24MiB\\nsize=24MiB\\n' | sfdisk --quiet \(disk)"
    try Shell.run("sh", "-c", script)
    try Shell.run("partx", "--update", disk)
    var mountPoints: [String] = []
    for number in 1...2 {
      try TestFileSystems.make("ext4", on: "\(disk)p\(number)")
      mountPoints.append(try systems.mount("\(disk)p\(number)"))
    }
    #expect(try Set(found(on: [disk]).map(\.mountPoint)) == Set(mountPoints))
    #expect(try found(on: ["\(disk)p2"]).map(\.mountPoint) == [mountPoints[1]])
    let both = try found(on: ["\(disk)p1", disk])
    #expect(both.first { $0.mountPoint == mountPoints[0] }?.sources == [0, 1])
    #expect(both.first { $0.mountPoint == mountPoints[1] }?.sources == [1])
  }

  @Test(
    "What lies on files of a file system is found, innermost first",
    arguments: ["ext4", "xfs", "btrfs"])
  func nested(outer: String) throws {
    let first = try systems.fileSystem(outer, mebibytes: 1200)
    var directory = first.mountPoint
    if outer == "btrfs" {
      // statx(2) shows a number of its own for a subvolume.
      directory += "/volume"
      try Shell.run("btrfs", "-q", "subvolume", "create", directory)
    }
    let second = try systems.fileSystem("xfs", mebibytes: 700, in: directory)
    let third = try systems.fileSystem("ext4", mebibytes: 64, in: second.mountPoint)
    let all = [third.mountPoint, second.mountPoint, first.mountPoint]
    let result = try found(on: [first.device])
    #expect(result.map(\.mountPoint) == all)
    #expect(result[0].depth > result[1].depth && result[1].depth > result[2].depth)
    #expect(try found(on: [second.device]).map(\.mountPoint) == Array(all[..<2]))
    #expect(try found(on: [second.image]).map(\.mountPoint) == Array(all[..<2]))
    // The order holds whichever disk leads to them first.
    let mixed = try found(on: [third.image, second.device, first.device])
    #expect(mixed.map(\.mountPoint) == all)
    #expect(mixed.map(\.sources) == [[0, 1, 2], [1, 2], [2]])
  }

  @Test("A loop device on a device is in it")
  func loopOnDevice() throws {
    let disk = try systems.loop(on: try systems.image(64))
    let inner = try systems.loop(on: disk)
    try TestFileSystems.make("ext4", on: inner)
    let mountPoint = try systems.mount(inner)
    #expect(try found(on: [disk]).map(\.mountPoint) == [mountPoint])
  }

  @Test("A file system that is mounted several times is found once", arguments: ["ext4", "btrfs"])
  func binds(kind: String) throws {
    let system = try systems.fileSystem(kind)
    try Shell.run("mkdir", system.mountPoint + "/folder")
    _ = try systems.mount("--bind", "-o", "ro", system.mountPoint)
    _ = try systems.mount("--bind", system.mountPoint + "/folder")
    let again = try systems.mount(system.device)
    #expect(try found(on: [system.device]).map(\.mountPoint) == [system.mountPoint])
    // Covered by another one, it is reached elsewhere.
    let cover = try systems.fileSystem("ext4", mebibytes: 16)
    try Shell.run("mount", cover.device, system.mountPoint)
    defer { unmount(system.mountPoint) }
    let result = try found(on: [system.device])
    #expect(result.count == 1 && result[0].isReachable && result[0].mountPoint != system.mountPoint)
    withExtendedLifetime(again) {}
  }

  @Test("One that is covered everywhere is found, and said to be out of reach")
  func covered() throws {
    let system = try systems.fileSystem()
    try Shell.run("mount", "-t", "tmpfs", "none", system.mountPoint)
    defer { unmount(system.mountPoint) }
    let result = try found(on: [system.device])
    #expect(result.count == 1 && result.first?.isReachable == false)
    let session = try systems.session(on: [system.device])
    #expect(try session.freeze().map(\.outcome) == [.vanished])
    _ = try session.thaw()
  }

  @Test("Every device of a Btrfs of two leads to it, once")
  func severalDevices() throws {
    let devices = try (0..<2).map { _ in try systems.loop(on: try systems.image(200)) }
    try Shell.run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", devices[0], devices[1])
    try Shell.run("btrfs", "device", "scan", devices[0], devices[1])
    let mountPoint = try systems.mount("-o", "device=\(devices[1])", devices[0])
    let numbers = try devices.map(deviceNumber)
    for device in devices {
      let result = try found(on: [device])
      #expect(result.map(\.mountPoint) == [mountPoint])
      #expect(Set(result.first?.members ?? []) == Set(numbers))
    }
    #expect(try found(on: devices).map(\.sources) == [[0, 1]])
  }

  @Test("Blanks in a mount point are part of it")
  func blanks() throws {
    let device = try systems.loop(on: try systems.image(16))
    try TestFileSystems.make("ext4", on: device)
    let mountPoint = try systems.mount(device, at: "a b\\c")
    let session = try systems.session(on: [device])
    #expect(session.fileSystems.map(\.mountPoint) == [mountPoint])
    guard case .frozen = try session.freeze().first?.outcome else {
      Issue.record("not frozen")
      return
    }
    #expect(try session.thaw().isHeld)
  }
}

@Suite("Places that depend on what is frozen", .enabled(if: Needs.systems, Needs.comment))
struct SelfDependenceTests {
  private let systems = TestFileSystems()

  private func collision(_ devices: [String], _ paths: [String]) throws -> String? {
    try SelfDependence(found(on: devices)).collision(of: paths).map {
      "\($0.path) \($0.mountPoint)"
    }
  }

  @Test(
    "A path on the file system collides, also one that doesn't exist yet",
    arguments: ["ext4", "btrfs"])
  func direct(kind: String) throws {
    let system = try systems.fileSystem(kind)
    let other = try systems.fileSystem(kind)
    let path = system.mountPoint + "/new/deeper"
    #expect(
      try collision([system.device], [other.mountPoint, path]) == "\(path) \(system.mountPoint)")
    #expect(try collision([system.device], [other.mountPoint, "/", "/dev/shm/x"]) == nil)
    let bind = try systems.mount("--bind", system.mountPoint)
    #expect(try collision([system.device], [bind]) == "\(bind) \(system.mountPoint)")
    if kind == "btrfs" {
      let volume = system.mountPoint + "/volume"
      try Shell.run("btrfs", "-q", "subvolume", "create", volume)
      #expect(try collision([system.device], [volume]) == "\(volume) \(system.mountPoint)")
    }
  }

  @Test(
    "A path on a loop device whose file lies there collides, at any depth",
    arguments: ["ext4", "btrfs"])
  func nested(kind: String) throws {
    let first = try systems.fileSystem(kind, mebibytes: 1200)
    let second = try systems.fileSystem("xfs", mebibytes: 700, in: first.mountPoint)
    let third = try systems.fileSystem("ext4", mebibytes: 64, in: second.mountPoint)
    // As if the inner ones were not to be frozen themselves.
    let outer = try found(on: [first.device]).filter { $0.mountPoint == first.mountPoint }
    let dependence = try SelfDependence(outer)
    for path in [first.mountPoint, second.mountPoint, third.mountPoint] {
      #expect(dependence.collision(of: [path])?.mountPoint == first.mountPoint)
    }
    #expect(try collision([third.device], [first.mountPoint, second.mountPoint]) == nil)
  }

  @Test("Records on a file system to be frozen are refused")
  func records() throws {
    let system = try systems.fileSystem()
    var options = systems.options
    options.recordFolder = system.mountPoint + "/run"
    let error = try #require(throws: StrobeError.self) {
      try systems.session(on: [system.device], options)
    }
    #expect(error.reason == .refused && error.message.contains(system.mountPoint))
  }
}

/// The device number of a special file.
func deviceNumber(_ path: String) throws -> DeviceNumber {
  try #require(try FileFacts(path: path)).specialDevice
}
