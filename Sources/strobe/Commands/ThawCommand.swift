import CommandLineArguments
import Engine

enum ThawCommand: Command {
  private static let mountPoints = RepeatedArgument(
    "MOUNTPOINT", atLeast: 0, help: "Only these file systems, or guests by the path of their socket"
  )
  private static let force = Flag(
    "force", help: "Thaw them whoever froze them, also under a snapshot that runs")

  static let declaration = CommandDeclaration(
    name: "thaw", summary: "Thaw file systems and guests that a snapshot left frozen",
    discussion: """
      For emergencies: a snapshot thaws by itself, also when it is killed; its guardian process does. Only when \
      both are killed do file systems stay frozen, and whoever writes to them hangs; or a guest does, frozen \
      by its agent or stopped by its monitor. Without arguments all of these are thawed, and nothing else. No \
      repository is needed.
      """,
    arguments: [mountPoints], options: [force],
    examples: [
      Example("strobe thaw", "Everything that was left frozen"),
      Example("strobe thaw /srv/data --force", "This one, whoever froze it"),
      Example("strobe thaw /run/web/agent.sock", "This guest"),
    ],
    exitStatuses: [
      ExitStatus(0, "Done; or there was nothing to do"),
      ExitStatus(1, "Failed, or refused: the message says why"), ExitStatus(2, "Wrong usage"),
    ])

  private struct Output: Encodable {
    struct FileSystem: Encodable {
      let mountPoint: String
      let outcome: String
    }

    struct Guest: Encodable {
      let socket: String
      let kind: String
      let outcome: String
    }

    let fileSystems: [FileSystem]
    let guests: [Guest]
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let places = values[mountPoints]
    if places.isEmpty && values[force] {
      throw StrobeError(
        .usage, "--force needs to know what to thaw", advice: "strobe thaw MOUNTPOINT --force")
    }
    let results =
      places.isEmpty
      ? try SystemThaw.thawAll() : SystemThaw.thaw(places, force: values[force])
    var failures: [StrobeError] = []
    var repairs: [SystemThaw.Repair] = []
    for result in results {
      switch result {
      case .success(let repair): repairs.append(repair)
      case .failure(let error): failures.append(error)
      }
    }
    try report(repairs, hasFailed: !failures.isEmpty, values)
    for failure in failures { Console.error(failure.description) }
    if failures.contains(where: { $0.reason == .usage }) { return 2 }
    return failures.isEmpty ? 0 : 1
  }

  private static func report(
    _ repairs: [SystemThaw.Repair], hasFailed: Bool, _ values: ParsedValues
  ) throws {
    if values[Common.json] {
      try Console.print(
        json: Output(
          fileSystems: repairs.filter { $0.kind == .fileSystem }.map {
            .init(mountPoint: $0.mountPoint, outcome: $0.outcome.rawValue)
          },
          guests: repairs.filter { $0.kind != .fileSystem }.map {
            .init(
              socket: $0.mountPoint, kind: $0.kind.rawValue, outcome: $0.outcome.rawValue)
          }))
    } else if !values[Common.quiet] {
      for repair in repairs { Console.print(text(repair)) }
      if repairs.isEmpty && !hasFailed && values[mountPoints].isEmpty {
        Console.print("Nothing was left frozen.")
      }
    }
  }

  private static func text(_ repair: SystemThaw.Repair) -> String {
    let place = Console.visible(repair.mountPoint)
    return switch (repair.kind, repair.outcome) {
    case (.fileSystem, .thawed): "Thawed \(place)."
    case (.fileSystem, .notFrozen): "\(place) was not frozen."
    case (.fileSystem, .gone): "\(place) is not mounted any more; there was nothing to thaw."
    case (.agent, .thawed): "Thawed the guest of \(place)."
    case (.agent, .notFrozen): "The guest of \(place) was not frozen."
    case (.processors, .thawed): "Resumed the guest of \(place)."
    case (.processors, .notFrozen): "The guest of \(place) was not stopped."
    case (_, .gone): "The guest of \(place) is gone; there was nothing to thaw."
    }
  }
}
