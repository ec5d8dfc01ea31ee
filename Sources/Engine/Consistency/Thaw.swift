public import Platform
import Quiescing

/// Repairs by hand what an outage of a snapshot and its guardian together left frozen.
public enum SystemThaw {
  public struct Repair: Sendable {
    public enum Outcome: String, Sendable {
      case thawed
      /// There was nothing to do.
      case notFrozen
      /// It isn't mounted any more, the guest ended, or the machine was restarted since.
      case gone
    }

    public enum Kind: String, Sendable {
      case fileSystem
      /// The file systems of a guest, by its agent.
      case agent
      /// The processors of a guest, by its monitor.
      case processors
    }

    public let kind: Kind
    /// The mount point, or the path of the guest's socket.
    public let mountPoint: String
    public let outcome: Outcome
  }

  /// Thaws every file system and every guest that a snapshot left frozen and that no running snapshot holds.
  ///
  /// - Parameter recordFolder: where snapshots leave their records; nil: the usual place.
  /// - Returns: what was done, or why not, for each.
  /// - Throws: when it can't be found out.
  public static func thawAll(
    recordFolder: String? = nil
  ) throws(StrobeError) -> [Result<Repair, StrobeError>] {
    try records(recordFolder).thawAll().map { $0.map(Repair.init) }
  }

  /// Thaws the file systems mounted at some places, and the guests of some sockets.
  ///
  /// - Parameter force: whoever froze them: another program, or a snapshot that runs, which then fails. Not for
  ///   guests.
  /// - Returns: for each what was done, or the error: `usage` when it is neither mount point nor socket, `busy` when a
  ///   snapshot holds it, `refused` when none left it frozen.
  public static func thaw(
    _ mountPoints: [String], force: Bool = false, recordFolder: String? = nil
  ) -> [Result<Repair, StrobeError>] {
    records(recordFolder).thaw(mountPoints, force: force).map { $0.map(Repair.init) }
  }

  private static func records(_ folder: String?) -> LeftFrozen {
    folder.map(LeftFrozen.init(recordFolder:)) ?? LeftFrozen()
  }
}

extension SystemThaw.Repair {
  init(_ repair: LeftFrozen.Repair) {
    kind =
      switch repair.kind {
      case .fileSystem: .fileSystem
      case .agent: .agent
      case .processors: .processors
      }
    mountPoint = repair.mountPoint
    outcome =
      switch repair.outcome {
      case .thawed: .thawed
      case .notFrozen: .notFrozen
      case .gone: .gone
      }
  }
}

/// The process that thaws when a snapshot can't: the program starts itself again as that.
public enum GuardianEntry {
  /// Whether a program with these arguments (its own name left out) was started to be a guardian.
  public static func isWanted(_ arguments: some Sequence<String>) -> Bool {
    Array(arguments) == [GuardianProcess.argument]
  }

  /// - Returns: the exit status, when everything is thawed.
  public static func run() -> Int32 { GuardianProcess.run() }
}
