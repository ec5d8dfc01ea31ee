import CommandLineArguments
import Engine

/// The options of `strobe snapshot` that are about a guest.
enum GuestOptions {
  private static let qmp = Option(
    "qmp", value: "SOCKET",
    help: "Take the disks of a running QEMU guest, found through its monitor; remembered")
  private static let libvirt = Option(
    "libvirt", value: "DOMAIN", help: "Take the disks of a running libvirt domain; remembered")
  private static let connect = Option(
    "connect", value: "URI", default: "qemu:///system", help: "Of --libvirt")
  private static let exclude = RepeatedOption(
    "exclude-disk", value: "NAME",
    help: "Leave a disk of the guest out; remembered (none: forgotten)")
  private static let agent = Option(
    "guest-agent", value: "SOCKET",
    help:
      "Freeze the guest's file systems for the cut, through its agent; also with --disk; remembered (none: forgotten)"
  )
  private static let agentTimeout = Option(
    "agent-timeout", value: "DURATION", default: "10s",
    help: "How long the guest agent may take to answer, and to freeze")
  private static let hooks = Flag(
    "guest-hooks",
    help:
      "The agent's own hooks bring the guest's applications to rest: ApplicationConsistent; remembered"
  )
  private static let pause = Option(
    "pause", value: "HOW",
    help:
      "auto: stop the guest's processors for the cut, some milliseconds, where that is the safer way; never; remembered"
  )
  private static let guestPause = Option(
    "guest-pause", value: "SOCKET",
    help:
      "With --disk: stop the guest that uses these disks for the cut, through its QMP monitor; remembered (none: forgotten)"
  )
  private static let scratch = Option(
    "scratch", value: "DIR",
    help:
      "Where QEMU keeps what the guest overwrites meanwhile; in the repository unless given; remembered (none: forgotten)"
  )

  static let all: [any OptionDeclaration] = [
    qmp, libvirt, connect, exclude, agent, agentTimeout, hooks, pause, guestPause, scratch,
  ]

  private enum Pause: String, CaseIterable { case auto, never }

  static func parse(_ values: ParsedValues) throws -> SnapshotOptions.Guest {
    var guest = SnapshotOptions.Guest()
    switch (values[qmp], values[libvirt]) {
    case (nil, nil): break
    case (let socket?, nil): guest.hypervisor = .qemu(monitor: socket)
    case (nil, let domain?):
      guest.hypervisor = .libvirt(connection: try values.require(connect), domain: domain)
    case (_?, _?):
      throw UsageError(
        "--qmp and --libvirt name the same guest in two ways", advice: "give one of them")
    }
    guest.agent = values[agent]
    guest.agentMilliseconds = try OptionValues.milliseconds(
      values, agentTimeout, upTo: .seconds(600))
    guest.hooksBringRest = values[hooks]
    if values[pause] != nil {
      guest.mayPause = try OptionValues.choice(values, pause, as: Pause.self) == .auto
    }
    guest.pauseMonitor = values[guestPause]
    guest.excludedDisks = values[exclude]
    guest.scratch = values[scratch]
    if guest.hypervisor != nil && guest.pauseMonitor != nil {
      throw UsageError(
        "--guest-pause is for disks named with --disk", advice: "leave it out: see --pause")
    }
    return guest
  }
}
