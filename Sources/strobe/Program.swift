import CLinux
import CommandLineArguments
import Engine
import Glibc
import Platform

/// The program: which commands there are, and what their errors mean to the shell.
enum Program {
  private static var commands: [any Command.Type] {
    [
      InitCommand.self, SnapshotCommand.self, ListCommand.self, ShowCommand.self,
      RestoreCommand.self, DiffCommand.self, VerifyCommand.self, DeleteCommand.self,
      PruneCommand.self, ProtectCommand.self, UnprotectCommand.self, GarbageCommand.self,
      UsageCommand.self, HealCommand.self, StatusCommand.self, TrackCommand.self, ThawCommand.self,
    ]
  }

  static let declaration = ProgramDeclaration(
    name: "strobe",
    summary: "Incremental snapshots of block devices: full disks from any point of a chain.",
    version: strobeVersion,
    discussion: """
      A restore point is one instant of all disks of a machine. It is written COLLECTION@latest, \
      COLLECTION@-N (N before the latest), COLLECTION@ID (the beginning of it) or COLLECTION@TIME (the \
      newest at or before that time; UTC unless it has a zone, a date alone is its first instant).
      """,
    commands: commands.map { $0.declaration },
    commonOptions: [Common.repository, Common.json, Common.quiet],
    examples: [
      Example("strobe init --repository /srv/strobe", "Make a repository"),
      Example(
        "strobe snapshot web --disk os=/dev/vg/os --disk data=/dev/vg/data", "The first point, full"
      ),
      Example("strobe snapshot web", "Later: the same disks, only the changes"),
      Example("strobe restore web@latest --disk os=/dev/vg/new", "Get a disk back"),
    ],
    exitStatuses: [
      ExitStatus(0, "Done"), ExitStatus(1, "Failed"), ExitStatus(2, "Wrong usage"),
      ExitStatus(3, "Done, but weaker than asked for: the message says what"),
      ExitStatus(130, "Interrupted (SIGINT); 143 by SIGTERM, 129 by SIGHUP"),
    ])

  static func run(_ arguments: [String]) -> Int32 {
    do {
      let width = min(Int(clinux_terminal_columns(STDOUT_FILENO)), 100)
      switch try declaration.parse(
        arguments, environment: environment(), width: width > 0 ? width : 80)
      {
      case .help(let text), .version(let text):
        Console.print(text)
        return 0
      case .noCommand(let help):
        Console.write(help + "\n")
        return 2
      case .command(let name, let values):
        guard let command = commands.first(where: { $0.declaration.name == name }) else {
          preconditionFailure("a declared command")
        }
        return try run(command, values)
      }
    } catch let error as UsageError {
      Console.error("\(error)")
      return 2
    } catch let error as StrobeError {
      return report(error)
    } catch {
      Console.error("\(error)")
      return 1
    }
  }

  private static func run(_ command: any Command.Type, _ values: ParsedValues) throws -> Int32 {
    do {
      return try command.run(values)
    } catch let error as StrobeError where error.reason == .cancelled {
      let signal = clinux_termination_signal()
      Console.error(
        "interrupted" + (command == SnapshotCommand.self ? "; nothing was committed" : "")
          + (error.advice.map { "; \($0)" } ?? ""))
      return signal == 0 ? 1 : 128 + signal
    }
  }

  private static func report(_ error: StrobeError) -> Int32 {
    Console.error(error.description)
    return error.reason == .usage ? 2 : 1
  }

  private static func environment() -> [String: String] {
    guard let value = unsafe getenv("STROBE_REPOSITORY") else { return [:] }
    return ["STROBE_REPOSITORY": unsafe String(cString: value)]
  }
}

/// One command: its declaration, and what it does with what was parsed.
protocol Command {
  static var declaration: CommandDeclaration { get }
  /// - Returns: the exit status.
  static func run(_ values: ParsedValues) throws -> Int32
}

/// Options that every command has.
enum Common {
  static let repository = Option(
    "repository", short: "r", value: "DIR", environment: "STROBE_REPOSITORY", help: "The repository"
  )
  static let json = Flag("json", help: "Write one JSON document to standard output")
  static let quiet = Flag("quiet", short: "q", help: "No progress, and only what was asked for")

  static func engine(_ values: ParsedValues) throws -> SnapshotEngine {
    try SnapshotEngine(repository: try values.require(repository))
  }

  /// Set by SIGINT, SIGTERM and SIGHUP.
  static let stop = CancellationFlag(external: { clinux_termination_signal() != 0 })
}
