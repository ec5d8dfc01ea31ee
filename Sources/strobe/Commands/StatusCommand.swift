import CommandLineArguments
import Engine

enum StatusCommand: Command {
  static let declaration = CommandDeclaration(
    name: "status", summary: "Show who works with the repository now",
    discussion: """
      Shows the snapshots and garbage collections that run, who on this machine reads which restore points, \
      and what commands that were killed have left behind.

      No lock ever needs a person: the kernel drops the locks of a process that ends, however it ends, and the \
      next snapshot or gc cleans up. There is nothing to unlock, and no file to remove.
      """,
    examples: [Example("strobe status", ""), Example("strobe status --json", "")],
    exitStatuses: [
      ExitStatus(0, "Done, whether anybody is at work or not"), ExitStatus(1, "Failed"),
      ExitStatus(2, "Wrong usage"),
    ])

  private struct Output: Encodable {
    struct Work: Encodable {
      let lock: String
      let activity: String
      let collection: String?
      let process: Int?
      let host: String?
      let since: String?
    }

    struct Reader: Encodable {
      let collection: String
      let point: String
      let process: Int?
      let program: String?
      let command: String?
      let isDeleting: Bool
    }

    struct Leftover: Encodable {
      let lock: String
      let note: String
      let cleanedUpBy: String
    }

    let repository: String
    let working: [Work]
    let reading: [Reader]
    let left: [Leftover]
  }

  static func run(_ values: ParsedValues) throws -> Int32 {
    let engine = try Common.engine(values)
    let status = try engine.status()
    if values[Common.json] {
      try Console.print(json: output(engine.location, status))
    } else {
      print(status, quiet: values[Common.quiet])
    }
    return 0
  }

  private static func output(_ repository: String, _ status: RepositoryStatus) -> Output {
    Output(
      repository: repository,
      working: status.work.map {
        .init(
          lock: $0.lock, activity: $0.activity, collection: $0.collection, process: $0.process,
          host: $0.host, since: $0.since?.description)
      },
      reading: status.readers.map {
        .init(
          collection: $0.collection, point: $0.point, process: $0.process, program: $0.program,
          command: $0.command, isDeleting: $0.isDeleting)
      },
      left: status.leftovers.map {
        .init(lock: $0.lock, note: $0.note, cleanedUpBy: $0.cleanedUpBy)
      })
  }

  private static func print(_ status: RepositoryStatus, quiet: Bool) {
    if !status.work.isEmpty || !status.readers.isEmpty {
      var table = Table(["WHAT", "OF", "PROCESS", "SINCE", "LOCK"])
      for work in status.work {
        table.add(
          [
            work.activity, work.collection ?? "", process(work.process, work.host),
            work.since?.description ?? "", work.lock,
          ].map(Console.visible))
      }
      for reader in status.readers {
        let command = (reader.command ?? reader.program ?? "").prefix(60)
        table.add(
          [
            reader.isDeleting ? "deletes" : "reads",
            "\(reader.collection)@\(reader.point.prefix(12))", process(reader.process, nil), "",
            "\(command)",
          ].map(Console.visible))
      }
      table.print()
    } else if !quiet {
      Console.print("Nobody works with the repository.")
    }
    for leftover in status.leftovers {
      Console.print(
        Console.visible(
          "\(leftover.lock): left by a \(leftover.cleanedUpBy == "gc" ? "gc" : "pass") that was killed; "
            + "the next \(leftover.cleanedUpBy) cleans up"
            + (leftover.note.isEmpty ? "" : " (\(leftover.note))")))
    }
  }

  private static func process(_ process: Int?, _ host: String?) -> String {
    (process.map { "\($0)" } ?? "?") + (host.map { " on \($0)" } ?? "")
  }
}
