// swift-tools-version: 6.2
import PackageDescription

/// The settings that every Swift room shares; `docs/architecture.md` says why each is on.
let room: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "strobe",
  products: [
    .executable(name: "strobe", targets: ["strobe"]),
    .library(name: "StrobeEngine", targets: ["Engine"]),
  ],
  targets: [
    .systemLibrary(name: "CAIO", providers: [.apt(["libaio-dev"])]),
    .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),
    .systemLibrary(name: "CBPF", pkgConfig: "libbpf", providers: [.apt(["libbpf-dev"])]),
    .systemLibrary(name: "CXML", pkgConfig: "libxml-2.0", providers: [.apt(["libxml2-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .target(name: "CLinux", dependencies: ["CXXHash", "CCrypto"]),
    // The eBPF program of the change tracker, compiled by `scripts/build-tracker` and embedded.
    .target(name: "CChangeTracker", exclude: ["tracker.bpf.c"]),
    // libvirt's C library, loaded at run time: Strobe runs where there is none.
    .target(name: "CLibvirt"),

    // Data flows downwards on a snapshot; a room imports only rooms above it.
    .target(name: "Platform", dependencies: ["CLinux"], swiftSettings: room),
    .target(
      name: "BlockDevices", dependencies: ["Platform", "CLinux", "CAIO", "CNBD"],
      swiftSettings: room),
    .target(name: "ChangeDetection", dependencies: ["Platform", "CLinux"], swiftSettings: room),
    .target(name: "ChunkCodec", dependencies: ["Platform", "CLinux", "CLZ4"], swiftSettings: room),
    .target(
      name: "SnapshotRepository",
      dependencies: ["Platform", "ChangeDetection", "ChunkCodec", "CLinux"], swiftSettings: room),
    .target(
      name: "ChangeTracking",
      dependencies: ["Platform", "BlockDevices", "CLinux", "CBPF", "CChangeTracker"],
      swiftSettings: room),
    .target(
      name: "VirtualMachines",
      dependencies: ["Platform", "BlockDevices", "CLinux", "CLibvirt", "CXML"],
      swiftSettings: room),
    .target(
      name: "Quiescing", dependencies: ["Platform", "BlockDevices", "VirtualMachines", "CLinux"],
      swiftSettings: room),
    .target(
      name: "Engine",
      dependencies: [
        "Platform", "BlockDevices", "ChangeDetection", "ChunkCodec", "SnapshotRepository",
        "ChangeTracking", "VirtualMachines", "Quiescing", "CLinux",
      ],
      swiftSettings: room),

    .target(name: "CommandLineArguments", swiftSettings: room),
    .executableTarget(
      name: "strobe",
      dependencies: ["Engine", "SnapshotRepository", "CommandLineArguments", "Platform", "CLinux"],
      swiftSettings: room),

    // Measured from outside by `scripts/bench`; this is what it needs from inside.
    .executableTarget(
      name: "strobe-bench",
      dependencies: ["Engine", "BlockDevices", "ChangeDetection", "ChunkCodec", "Platform"],
      path: "Benchmarks/Tool", swiftSettings: room),

    // Tests mirror the rooms. `CommandTests` run the built program.
    .target(
      name: "TestSupport", dependencies: ["Platform"], path: "Tests/TestSupport",
      swiftSettings: room),
    // An engine that freezes and does nothing else: what the tests of the guardian kill.
    .executableTarget(
      name: "freeze-driver", dependencies: ["Quiescing", "VirtualMachines", "Platform"],
      path: "Tests/FreezeDriver",
      swiftSettings: room),
    // What reads foreign bytes, wrapped for `scripts/fuzz`; the tests run the corpus through it.
    .target(
      name: "FuzzedParsers",
      dependencies: [
        "strobe", "Engine", "SnapshotRepository", "Quiescing", "VirtualMachines", "BlockDevices",
        "ChangeDetection", "ChunkCodec", "CommandLineArguments", "Platform",
      ],
      path: "Tests/Fuzzing/Parsers", swiftSettings: room),
    .testTarget(
      name: "FuzzingTests", dependencies: ["FuzzedParsers", "Platform"], swiftSettings: room),
    // Stands between a test program and the C library: what links it can record, fail and fill.
    .target(name: "FaultLayer", path: "Tests/FaultLayer"),
    // Crashes of every operation at every step; run by `scripts/crash-states`.
    .executableTarget(
      name: "crash-states",
      dependencies: [
        "FaultLayer", "Engine", "SnapshotRepository", "ChangeDetection", "Platform", "TestSupport",
      ],
      path: "Tests/CrashStates", swiftSettings: room),
    .target(name: "SimulationCalls", dependencies: ["FaultLayer"], path: "Tests/SimulationCalls"),
    // Random commands against a model, each seed the same in every run: `scripts/simulate`.
    .executableTarget(
      name: "simulate",
      dependencies: [
        "Engine", "SnapshotRepository", "Platform", "CLinux", "FaultLayer", "SimulationCalls",
        "TestSupport",
      ],
      path: "Tests/Simulation", swiftSettings: room),
    .testTarget(
      name: "PlatformTests", dependencies: ["Platform", "CLinux", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "BlockDevicesTests", dependencies: ["BlockDevices", "Platform", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "ChangeDetectionTests", dependencies: ["ChangeDetection", "Platform", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "ChunkCodecTests", dependencies: ["ChunkCodec", "Platform", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "SnapshotRepositoryTests",
      dependencies: [
        "SnapshotRepository", "ChangeDetection", "ChunkCodec", "Platform", "TestSupport",
      ],
      resources: [.copy("Golden")], swiftSettings: room),
    .testTarget(
      name: "ChangeTrackingTests",
      dependencies: ["ChangeTracking", "BlockDevices", "Platform", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "VirtualMachinesTests",
      dependencies: ["VirtualMachines", "BlockDevices", "Platform", "CLinux", "TestSupport"],
      swiftSettings: room),
    .testTarget(
      name: "QuiescingTests",
      dependencies: [
        "Quiescing", "VirtualMachines", "BlockDevices", "Platform", "CLinux", "strobe",
        "freeze-driver", "TestSupport",
      ],
      swiftSettings: room),
    .testTarget(
      name: "EngineTests",
      dependencies: [
        "Engine", "ChangeTracking", "VirtualMachines", "Quiescing", "SnapshotRepository",
        "BlockDevices", "ChangeDetection", "Platform", "CLinux", "TestSupport",
      ], swiftSettings: room),
    .testTarget(
      name: "CommandLineArgumentsTests", dependencies: ["CommandLineArguments"], swiftSettings: room
    ),
    .testTarget(
      name: "CommandTests",
      dependencies: ["strobe", "ChangeTracking", "Platform", "CLinux", "TestSupport"],
      swiftSettings: room
    ),
  ]
)

// With libFuzzer, whose archive `scripts/fuzz` names; see `docs/testing.md`.
if let libFuzzer = Context.environment["STROBE_LIBFUZZER"],
  let program = package.targets.firstIndex(where: { $0.name == "strobe" })
{
  // An executable isn't linked into another one: without its entry point it is a library.
  package.products.removeAll { $0.name == "strobe" }
  package.targets[program] = .target(
    name: "strobe", dependencies: package.targets[program].dependencies, exclude: ["main.swift"],
    swiftSettings: room)
  package.targets += [
    .systemLibrary(name: "CFuzzer", path: "Tests/Fuzzing/CFuzzer"),
    .executableTarget(
      name: "strobe-fuzz", dependencies: ["FuzzedParsers", "CFuzzer"], path: "Tests/Fuzzing/Driver",
      swiftSettings: room,
      linkerSettings: [.unsafeFlags(["-Xlinker", libFuzzer]), .linkedLibrary("stdc++")]),
  ]
}
